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

    /// Takes the lock, without waiting for it; fails where another process has it.
    ///
    /// The corresponding C function is `flock`.
    ///
    /// - Parameters:
    ///   - name: of the job: the file's name.
    ///   - directory: where the file is; others may write there too, but not to the file.
    /// - Throws: where the file cannot be opened or is not ours.
    package init?(_ name: String, in directory: String = "/run/lock") throws(IOError) {
        let path = "\(directory)/blkferry-\(name).lock"
        do throws(Errno) {
            file = try Self.open(path)
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
    /// - Parameter path: in a directory that others may write to.
    /// - Returns: the file, which is this user's own.
    /// - Throws: what the system says; EPERM for what somebody else has put there.
    static func open(_ path: String) throws(Errno) -> OwnedDescriptor {
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
