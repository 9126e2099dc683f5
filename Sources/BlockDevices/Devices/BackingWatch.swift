// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import LinuxIO

/// Notices writes by other processes to the files behind the loop devices below a device or image.
///
/// The kernel reports write(2), truncate(2) and fallocate(2) as soon as they are done (fanotify(7),
/// FAN_MODIFY), and closes after opening for writing (FAN_CLOSE_WRITE). A process may also have
/// written through a memory map before it closed the file.
///
/// A loop device's own writes do not count. Linux before 6.15 reports some of them, in the name of a
/// kernel thread.
final class BackingWatch: Sendable {
    private let events: ForeignEvents
    private let areClosesForeign: Bool

    /// Starts the watch; `nil` if the kernel has no such events.
    ///
    /// - Parameter areClosesForeign: whether a close counts as a foreign write, and not only as one
    ///   of another writer.
    init?(_ files: [BackingFile], areClosesForeign: Bool) {
        guard let events = ForeignEvents(BackingWatch.kinds) else { return nil }
        for file in files { file.beWatched(by: events.descriptor) }
        self.events = events
        self.areClosesForeign = areClosesForeign
    }

    /// Whether another process closed a file since the last call, if closes are foreign writes.
    func hasForeignWrites() -> Bool { areClosesForeign && events.take(.close) }

    /// Whether another process may have written since the last call, or closed a file, if closes are
    /// no foreign writes.
    func hadOtherWriters() -> Bool {
        events.take(areClosesForeign ? .possibleWrite : [.possibleWrite, .close])
    }

    /// Whether another process wrote to a file since the last call, wherever in the file it was.
    func wasWritten() -> Bool { events.take(.write) }

    private static func kinds(_ mask: UInt64, _ process: Int32) -> ForeignEvents.Kinds {
        let isClose = mask & ForeignEvents.closeWrite != 0
        let isWrite = mask & ForeignEvents.modify != 0
        // Events were lost.
        if !isClose && !isWrite { return .write }
        var kinds: ForeignEvents.Kinds = isClose ? .close : []
        if isWrite {
            switch isKernelThread(process) {
            case .some(true): break
            case .some(false): kinds.insert(.write)
            case nil: if process != 0 || isLoopSilent { kinds.insert(.possibleWrite) }
            }
        }
        return kinds
    }

    /// Whether loop devices never report their own writes.
    ///
    /// Until Linux 6.14 a loop device that uses the page cache does (`lo_write_bvec` in
    /// drivers/block/loop.c), so a report that names no process may be of this run's writes.
    private static let isLoopSilent = kernelVersion().map { $0 >= (6, 15) } ?? false

    /// Whether a process is a thread of the kernel; `nil` if it has ended, or for 0, which stands
    /// for one of another PID namespace and without privileges for any other process.
    ///
    /// Source: `PF_KTHREAD` of linux/sched.h.
    private static func isKernelThread(_ process: Int32) -> Bool? {
        ProcessStatus("\(process)").flags.map { $0 & 0x0020_0000 != 0 }
    }
}
