// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CLinuxBlock
internal import Glibc
internal import LinuxIO
internal import Synchronization

/// Notices writes by other processes to the files behind the loop devices below a device or image.
///
/// The kernel reports write(2), truncate(2) and fallocate(2) as soon as they are done (fanotify(7),
/// FAN_MODIFY), and closes after opening for writing (FAN_CLOSE_WRITE). A process may also have
/// written through a memory map before it closed the file.
///
/// A loop device's own writes do not count. Linux before 6.15 reports some of them, in the name of a
/// kernel thread.
final class BackingWatch: Sendable {
    private let events: OwnedDescriptor
    private let areClosesForeign: Bool
    private struct Seen {
        var wasClosed = false
        var wasWritten = false
        /// Whether a process wrote that may have been a kernel thread.
        var mayBeWritten = false
    }
    private let seen = Mutex(Seen())

    /// Starts the watch; `nil` if the kernel has no such events.
    ///
    /// - Parameter areClosesForeign: whether a close counts as a foreign write, and not only as one
    ///   of another writer.
    init?(_ files: [BackingFile], areClosesForeign: Bool) {
        let watch = clb_create_watch()
        guard watch >= 0 else { return nil }
        events = OwnedDescriptor(owning: watch)
        self.areClosesForeign = areClosesForeign
        for file in files { file.beWatched(by: watch) }
    }

    /// Whether another process closed a file since the last call, if closes are foreign writes.
    func hasForeignWrites() -> Bool {
        guard areClosesForeign else { return false }
        return seen.withLock { seen in
            look(&seen)
            defer { seen.wasClosed = false }
            return seen.wasClosed
        }
    }

    /// Whether another process may have written since the last call, or closed a file, if closes are
    /// no foreign writes.
    func hadOtherWriters() -> Bool {
        seen.withLock { seen in
            look(&seen)
            let isClosed = !areClosesForeign && seen.wasClosed
            if isClosed { seen.wasClosed = false }
            defer { seen.mayBeWritten = false }
            return isClosed || seen.mayBeWritten
        }
    }

    /// Whether another process wrote to a file since the last call, wherever in the file it was.
    func wasWritten() -> Bool {
        seen.withLock { seen in
            look(&seen)
            defer { seen.wasWritten = false }
            return seen.wasWritten
        }
    }

    private func look(_ seen: inout Seen) {
        forEachWatchEvent(in: events.rawValue) { mask, process in
            guard process != getpid() else { return }
            let isClose = mask & WatchEvent.closeWrite != 0
            let isWrite = mask & WatchEvent.modify != 0
            if isClose { seen.wasClosed = true }
            if isWrite {
                switch Self.isKernelThread(process) {
                case .some(true): break
                case .some(false): seen.wasWritten = true
                case nil: if process != 0 || Self.isLoopSilent { seen.mayBeWritten = true }
                }
            }
            // Events were lost.
            if !isClose && !isWrite { seen.wasWritten = true }
        }
    }

    /// Whether loop devices never report their own writes.
    ///
    /// Until Linux 6.14 a loop device that uses the page cache does (`lo_write_bvec` in
    /// drivers/block/loop.c), so a report that names no process may be of this run's writes.
    private static let isLoopSilent: Bool = {
        let release = readSmallFile("/proc/sys/kernel/osrelease") ?? ""
        let numbers = release.split { !("0"..."9").contains($0) }.prefix(2).compactMap { Int($0) }
        guard numbers.count == 2 else { return false }
        return (numbers[0], numbers[1]) >= (6, 15)
    }()

    /// Whether a process is a thread of the kernel; `nil` if it has ended, or for 0, which stands
    /// for one of another PID namespace and without privileges for any other process.
    ///
    /// Source: proc_pid_stat(5), and `PF_KTHREAD` of linux/sched.h. The fields follow the name,
    /// which may contain any character.
    private static func isKernelThread(_ process: Int32) -> Bool? {
        let status = readSmallFile("/proc/\(process)/stat") ?? ""
        let fields = status.split(separator: ")").last?.split(separator: " ") ?? []
        guard fields.count > 6, let flags = UInt32(fields[6]) else { return nil }
        return flags & 0x0020_0000 != 0
    }
}
