// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
package import LinuxIO
internal import SystemPackage

/// Keeps two runs of one job on this machine apart, for as long as it lives.
///
/// Nobody removes its file: who waits for it could lock one that others do not find any more.
package final class RunLock: Sendable {
    private let file: OwnedDescriptor

    /// Where the files are; nobody but the superuser can put anything there.
    package static let usualDirectory = "/run/blkferry"

    /// Takes the lock, without waiting for it; fails where another process has it.
    ///
    /// The corresponding C function is `flock`.
    ///
    /// - Parameters:
    ///   - name: of the job: the file's name.
    ///   - directory: where the file is; it is made where it is missing.
    /// - Throws: where the file cannot be opened or is not ours.
    package init?(_ name: String, in directory: String = usualDirectory) throws(IOError) {
        let path = "\(directory)/\(name).lock"
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

    /// Opens a file to lock, and makes it where it is missing.
    ///
    /// - Parameters:
    ///   - path: of the file.
    ///   - directory: where that is, which is made as well, for this user alone.
    /// - Returns: the file, which is this user's own.
    /// - Throws: what the system says; EPERM for what somebody else has put there.
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
