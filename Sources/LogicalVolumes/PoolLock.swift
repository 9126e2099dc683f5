// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
internal import LinuxIO
internal import SystemPackage

/// Keeps a thin pool's metadata snapshot to one blkferry at a time, as long as it lives.
///
/// Its file also names the metadata snapshot that is held: one that was killed leaves it there, so
/// that the next one knows it for its own. Nobody removes the file.
final class PoolLock: Sendable {
    private let file: OwnedDescriptor
    private let path: String
    private let pool: String

    /// Milliseconds between two tries.
    private static let pause: UInt32 = 50

    /// Takes the lock, and waits for it while another process has it.
    ///
    /// The corresponding C function is `flock`.
    ///
    /// - Parameters:
    ///   - directory: where the file is; it is made where it is missing.
    ///   - pool: the pool's name.
    ///   - isOver: asked now and then.
    /// - Throws: where it cannot be had.
    init(in directory: String, pool: String, unless isOver: () -> Bool) throws(ChangeMapError) {
        self.pool = pool
        path = "\(directory)/\(pool).lock"
        do throws(Errno) {
            // What somebody else has put there says nothing of ours.
            file = try RunLock.open(path, in: directory)
            let descriptor = file.rawValue
            while flock(descriptor, LOCK_EX | LOCK_NB) != 0 {
                let code = currentErrno()
                guard code == .resourceTemporarilyUnavailable || code == .interrupted else {
                    throw code
                }
                if isOver() { break }
                usleep(Self.pause * 1000)
            }
        } catch {
            throw ChangeMapError(pool, "\(path): lock: \(error)")
        }
        if isOver() { throw .cancelled(pool) }
    }

    /// Its file, for a program that writes down what it does for this one, and keeps the lock until
    /// it ends.
    var descriptor: Int32 { file.rawValue }

    /// The root of the metadata snapshot that the last holder of the lock left; `nil` for none.
    ///
    /// The file has the pool's status, as dmsetup(8) printed it.
    var recordedRoot: Int? {
        var bytes = [UInt8](repeating: 0, count: 1024)
        let count = try? bytes.withUnsafeMutableBytes { try file.readOnce(into: $0, at: 0) }
        // Only a line with its end was written wholly.
        guard let count, count > 0, bytes[count - 1] == UInt8(ascii: "\n") else { return nil }
        let words = String(decoding: bytes[..<(count - 1)], as: UTF8.self).split(separator: " ")
        return words.count > 6 && words[2] == "thin-pool" ? Int(words[6]) : nil
    }

    /// The file says nothing from now on.
    ///
    /// - Throws: what the system says.
    func clear() throws(ChangeMapError) {
        do throws(Errno) {
            let descriptor = file.rawValue
            _ = try retryingInterrupts { ftruncate(descriptor, 0) }
        } catch {
            throw ChangeMapError(pool, "\(path): write: \(error)")
        }
    }
}
