// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CLinuxBlock
internal import Glibc
internal import LinuxIO
internal import Synchronization
internal import SystemPackage

/// Notices writes to a file or block device by other processes.
///
/// The kernel reports write(2), truncate(2) and fallocate(2) through the watched file or node
/// (fanotify(7), FAN_MODIFY). It reports neither writes through memory maps and other nodes of the
/// device, nor the kernel's own. Without privileges a program learns only whether a write was its
/// own (Linux 5.13 and later), which is enough here.
///
/// A loop device on an image writes without an event, but it has the image open for writing. So the
/// run compares again if another process closes the image after it had it open for writing
/// (FAN_CLOSE_WRITE).
final class WriteWatch: Sendable {
    private let events: OwnedDescriptor
    private let isOfImage: Bool
    private struct Seen {
        var isForeign = false
        var hadWriters = false
    }
    private let seen = Mutex(Seen())

    /// Starts the watch on an open file; `nil` if the kernel or the file system has no such events.
    init?(_ file: borrowing OwnedDescriptor) {
        let watch = clb_create_watch()
        guard watch >= 0 else { return nil }
        events = OwnedDescriptor(owning: watch)
        isOfImage = (try? file.status())?.kind == .regular
        guard clb_watch_writes(watch, file.rawValue) == 0 else { return nil }
        if isOfImage { _ = clb_watch_writers(watch, file.rawValue) }
    }

    /// Whether another process wrote since the last call.
    func hasForeignWrites() -> Bool {
        seen.withLock { seen in
            look(&seen)
            defer { seen.isForeign = false }
            return seen.isForeign
        }
    }

    /// Whether another process closed the image since the last call, and may have written to it
    /// through a loop device.
    func hadOtherWriters() -> Bool {
        seen.withLock { seen in
            look(&seen)
            defer { seen.hadWriters = false }
            return seen.hadWriters
        }
    }

    private func look(_ seen: inout Seen) {
        forEachWatchEvent(in: events.rawValue) { mask, writer in
            guard writer != getpid() else { return }
            if isOfImage && mask & WatchEvent.modify == 0 {
                seen.hadWriters = true
            } else {
                seen.isForeign = true
            }
        }
    }
}

/// Bits of the mask of an event, from linux/fanotify.h.
enum WatchEvent {
    /// `FAN_MODIFY`.
    static let modify: UInt64 = 0x2
    /// `FAN_CLOSE_WRITE`.
    static let closeWrite: UInt64 = 0x8
}

/// Takes all events that a descriptor of fanotify(7) has by now.
///
/// The kernel merges the events of a process, so their number stays small during a long run.
///
/// - Parameter body: receives the mask of each event and the process that caused it.
func forEachWatchEvent(
    in events: Int32, _ body: (_ mask: UInt64, _ process: Int32) -> Void
) {
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 64 << 10, alignment: 8)
    defer { memory.deallocate() }
    while true {
        let count = read(events, memory.baseAddress, memory.count)
        if count < 0, errno == EINTR { continue }
        guard count > 0 else { return }
        var rest = UnsafeRawBufferPointer(rebasing: memory[..<count])
        // struct fanotify_event_metadata: event_len at 0, mask at 8, pid at 20.
        while rest.count >= 24 {
            let length = Int(rest.loadUnaligned(fromByteOffset: 0, as: UInt32.self))
            body(
                rest.loadUnaligned(fromByteOffset: 8, as: UInt64.self),
                rest.loadUnaligned(fromByteOffset: 20, as: Int32.self))
            guard length >= 24, length <= rest.count else { break }
            rest = UnsafeRawBufferPointer(rebasing: rest[length...])
        }
    }
}
