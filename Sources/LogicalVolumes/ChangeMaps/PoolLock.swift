// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
internal import LinuxIO
internal import SystemPackage

/// Allows one blkferry process at a time to hold a thin pool's metadata snapshot, as long as it
/// lives.
///
/// The lock's file also records the held metadata snapshot. If blkferry is killed, the next one
/// recognizes the metadata snapshot by that record. blkferry never removes the file.
final class PoolLock: Sendable {
    private let file: OwnedDescriptor
    private let path: String
    private let pool: String

    /// Time between two attempts.
    private static let interval = Duration.milliseconds(50)

    /// Takes the lock, and waits while another process holds it.
    ///
    /// The corresponding C function is `flock`.
    init(in directory: String, pool: String, unless isCancelled: () -> Bool) throws(IOError) {
        self.pool = pool
        path = "\(directory)/\(pool).lock"
        do throws(Errno) {
            // A file that another user put there is refused.
            file = try RunLock.open(path, in: directory)
            let descriptor = file.rawValue
            while flock(descriptor, LOCK_EX | LOCK_NB) != 0 {
                let code = currentErrno()
                guard code == .resourceTemporarilyUnavailable || code == .interrupted else {
                    throw code
                }
                guard pause(for: Self.interval, unless: isCancelled) else { break }
            }
        } catch {
            throw .noChangeMap(pool, "\(path): lock: \(error)")
        }
        if isCancelled() { throw .cancelled(pool) }
    }

    /// The file's descriptor, for a process that records its result there and keeps the lock until
    /// it ends.
    var descriptor: Int32 { file.rawValue }

    /// The root of the metadata snapshot that the last holder of the lock left; `nil` for none.
    ///
    /// The file holds the pool's status.
    var recordedRoot: Int? {
        var bytes = [UInt8](repeating: 0, count: 1024)
        let count = try? bytes.withUnsafeMutableBytes { try file.readOnce(into: $0, at: 0) }
        // A line without its end was not written completely.
        guard let count, count > 0, bytes[count - 1] == UInt8(ascii: "\n") else { return nil }
        let status = String(decoding: bytes[..<(count - 1)], as: UTF8.self)
        return PoolStatus.heldRoot(in: status.split(separator: " "))
    }

    func clear() throws(IOError) {
        do throws(Errno) {
            let descriptor = file.rawValue
            _ = try retryingInterrupts { ftruncate(descriptor, 0) }
        } catch {
            throw .noChangeMap(pool, "\(path): write: \(error)")
        }
    }
}
