// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
package import LinuxIO
internal import SystemPackage

/// Prevents two runs of one job on this machine at once, as long as it lives.
///
/// blkferry never removes the lock's file. A process that waits for a removed file would lock a
/// file that later processes do not find.
package final class RunLock: Sendable {
    private let path: String
    private let file: OwnedDescriptor

    /// The directory of the lock files; only the superuser can create files there.
    package static let usualDirectory = "/run/blkferry"

    /// Takes the lock without waiting; `nil` if another process holds it.
    ///
    /// The corresponding C function is `flock`.
    package init?(_ name: String, in directory: String = usualDirectory) throws(IOError) {
        let path = "\(directory)/\(name).lock"
        self.path = path
        do throws(Errno) {
            file = try Self.open(path, in: directory)
            let descriptor = file.rawValue
            _ = try retryingInterrupts { flock(descriptor, LOCK_EX | LOCK_NB) }
        } catch .resourceTemporarilyUnavailable {
            return nil
        } catch {
            throw IOError(path, "lock", error)
        }
    }

    /// A number that stays until the next holder, also if this one is killed; 0 at first.
    ///
    /// It is the size of the lock's file, which changes completely or not at all.
    package var note: Int { FileStatus(descriptor: file.rawValue)?.size ?? 0 }

    /// The corresponding C function is `ftruncate`.
    package func setNote(_ note: Int) throws(IOError) {
        let descriptor = file.rawValue
        do throws(Errno) { _ = try retryingInterrupts { ftruncate(descriptor, note) } } catch {
            throw IOError(path, "write", error)
        }
    }

    /// Opens a lock file, and creates it and its directory (mode 0700) if they do not exist.
    ///
    /// - Throws: the system's error; EPERM if the file belongs to another user or is not a regular
    ///   file.
    static func open(_ path: String, in directory: String) throws(Errno) -> OwnedDescriptor {
        do throws(Errno) { _ = try retryingInterrupts { mkdir(directory, 0o700) } } catch {
            guard error == .fileExists else { throw error }
        }
        let file = try OwnedDescriptor.open(path, flags: O_RDWR | O_CREAT | O_NOFOLLOW)
        var status = stat()
        let descriptor = file.rawValue
        _ = try retryingInterrupts { fstat(descriptor, &status) }
        guard status.st_uid == geteuid(), status.st_mode & S_IFMT == S_IFREG else {
            throw .notPermitted
        }
        return file
    }
}
