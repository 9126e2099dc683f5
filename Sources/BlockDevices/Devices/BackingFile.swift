// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CLinuxBlock
internal import Glibc
package import LinuxIO
internal import SystemPackage

/// The file or block device below a loop device.
///
/// Without direct I/O a loop device uses the page cache. If write-back fails, the kernel marks the
/// pages clean. They then read as the written data, which is not on the medium.
package final class BackingFile: Sendable {
    package let path: String
    private let exactPath: KernelPath
    private let file: OwnedDescriptor

    /// Opens a backing file for reading; `nil` if it cannot be opened or is another file.
    ///
    /// - Parameter isExpected: `false` for another file with this path, such as a file in another
    ///   mount namespace.
    package init?(path: KernelPath, where isExpected: (FileStatus) -> Bool) {
        guard let file = try? OwnedDescriptor.open(path, flags: O_RDONLY | O_NONBLOCK),
            let status = try? file.status(), isExpected(status)
        else { return nil }
        self.path = path.text
        exactPath = path
        self.file = file
    }

    /// Writes cached pages back and drops them, so that later reads come from the medium.
    ///
    /// The corresponding C functions are `fsync` and `posix_fadvise`.
    package func forgetPages() {
        // The writer sees the error of a failed write-back. A reader then sees the medium.
        try? file.synchronize()
        file.dropCachedPages()
    }

    /// Makes a descriptor of fanotify(7) report writes to a regular file, and other processes that
    /// close it after they had it open for writing.
    ///
    /// This process opens the file for reading only; otherwise a child between fork and exec could
    /// do the last close of its descriptor. The loop device closes nothing during the run.
    func beWatched(by watch: Int32) {
        guard (try? file.status())?.kind == .regular else { return }
        _ = clb_watch_writes(watch, file.rawValue)
        _ = clb_watch_writers(watch, file.rawValue)
    }

    /// The size and the time of change (ctime) of a regular file, which every write changes; empty
    /// for a block device.
    func changeMarks() throws(Errno) -> [Int] {
        let status = try file.status()
        return status.kind == .regular ? [status.size, status.changed] : []
    }

    /// Whether the path by which it was opened still leads to it.
    func hasItsName() throws(Errno) -> Bool {
        let own = try file.status()
        do throws(Errno) {
            let named = try FileStatus(path: exactPath)
            // udev may create another node for the same device.
            return own.kind == .blockDevice
                ? named.kind == .blockDevice && named.device == own.device
                : named.isSameFile(as: own)
        } catch .noSuchFileOrDirectory, .notDirectory {
            return false
        }
    }

    /// Whether another program has locked it, shared or exclusive (flock(2)).
    package func isLocked() -> Bool {
        let descriptor = file.rawValue
        let isHeld = { ($0 as Errno) == .resourceTemporarilyUnavailable }
        do throws(Errno) {
            try waitingForHolders(isHeld) { () throws(Errno) in
                _ = try retryingInterrupts { flock(descriptor, LOCK_EX | LOCK_NB) }
            }
            flock(descriptor, LOCK_UN)
            return false
        } catch {
            return isHeld(error)
        }
    }
}
