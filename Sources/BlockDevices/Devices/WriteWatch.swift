// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CLinuxBlock
internal import LinuxIO

/// Notices writes to a file or block device by other processes.
///
/// The kernel reports write(2), truncate(2) and fallocate(2) through the watched file or node
/// (fanotify(7), FAN_MODIFY). It reports neither writes through memory maps and other nodes of the
/// device, nor the kernel's own.
///
/// A loop device on an image writes without an event, but it has the image open for writing. So the
/// run compares again if another process closes the image after it had it open for writing
/// (FAN_CLOSE_WRITE).
final class WriteWatch: Sendable {
    private let events: ForeignEvents

    /// Starts the watch on an open file; `nil` if the kernel or the file system has no such events.
    init?(_ file: borrowing OwnedDescriptor) {
        let isOfImage = (try? file.status())?.kind == .regular
        let kinds = { @Sendable (mask: UInt64, _: Int32) -> ForeignEvents.Kinds in
            isOfImage && mask & ForeignEvents.modify == 0 ? .close : .write
        }
        guard let events = ForeignEvents(kinds),
            clb_watch_writes(events.descriptor, file.rawValue) == 0
        else { return nil }
        if isOfImage { _ = clb_watch_writers(events.descriptor, file.rawValue) }
        self.events = events
    }

    /// Whether another process wrote since the last call.
    func hasForeignWrites() -> Bool { events.take(.write) }

    /// Whether another process closed the image since the last call, and may have written to it
    /// through a loop device.
    func hadOtherWriters() -> Bool { events.take(.close) }
}
