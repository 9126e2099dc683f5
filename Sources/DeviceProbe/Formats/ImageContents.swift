// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
internal import LinuxIO
internal import Synchronization

/// Remembers the content of images as long as their change time and size stay the same.
///
/// Only lists and names use it. The safety gate never does: a program that has mapped an image may
/// write to it without a new change time.
package final class ImageContents: Sendable {
    private struct Entry {
        var size: Int
        var changed: Int
        var content: Content
    }
    private let entries = Mutex<[FileIdentity: Entry]>([:])

    private static let limit = 16384
    /// Nanoseconds that a change time must be old.
    ///
    /// A second change within one tick of the file system's clock leaves the change time as it is.
    /// FAT has ticks of two seconds.
    private static let tick = 2_000_000_000

    package init() {}

    /// Nanoseconds since 1970.
    static var now: Int {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return Int(time.tv_sec) &* 1_000_000_000 &+ Int(time.tv_nsec)
    }

    var count: Int { entries.withLock { $0.count } }

    /// The known content of an image; `nil` if it is not known or the image has changed.
    func content(of status: FileStatus) -> Content? {
        let entry = entries.withLock { $0[FileIdentity(status)] }
        guard let entry, entry.size == status.size, entry.changed == status.changed else {
            return nil
        }
        return entry.content
    }

    /// Remembers content, unless a part of it could not be read.
    ///
    /// `status` and its time `now`, in nanoseconds since 1970, must be from before the probing.
    func keep(_ content: Content, of status: FileStatus, now: Int) {
        switch content {
        case .unreadable, .partial: return
        case .empty, .signatures, .ambiguous: break
        }
        guard now &- status.changed > Self.tick else { return }
        entries.withLock { entries in
            if entries.count >= Self.limit { entries.removeAll() }
            entries[FileIdentity(status)] = Entry(
                size: status.size, changed: status.changed, content: content)
        }
    }
}
