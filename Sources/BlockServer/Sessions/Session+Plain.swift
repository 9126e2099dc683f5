// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import LinuxIO
internal import Synchronization
internal import WireProtocol

/// One request's use of a session, which ends with this object.
final class SessionUse: Sendable {
    let session: Session

    /// The caller has called `begin()`.
    init(begun session: Session) { self.session = session }

    deinit { session.finish() }
}

extension Session {
    static var isForReading: Problem {
        Problem(
            .access, status: 403, "The session may not write", detail: "the session is for reading")
    }

    static func refusal(_ name: String, _ cause: IOError.Refusal, _ reason: String) -> Problem {
        Problem(.refusal(cause, name, reason))
    }

    static func beyondEnd(_ name: String, _ offset: Int, _ count: Int, size: Int) -> Problem {
        refusal(
            name, .size, "it has \(size) bytes, and \(count) at offset \(offset) are beyond that")
    }

    /// Writes bytes that need not be aligned, and flushes them.
    ///
    /// - Parameters:
    ///   - bytes: in memory that is aligned for direct I/O.
    ///   - flushing: `false` if a later write of the same request flushes.
    func writeThrough(
        _ bytes: UnsafeRawBufferPointer, at offset: Int, flushing: Bool = true,
        _ memory: UnsafeMutableRawBufferPointer
    ) throws(Problem) {
        let (size, unit) = (device.geometry.size, device.geometry.alignment)
        guard offset <= size, bytes.count <= size - offset else {
            throw Self.beyondEnd(name, offset, bytes.count, size: size)
        }
        let range = ByteRange(offset: offset, length: bytes.count)
        guard !range.isEmpty else { return }
        let isAligned = offset % unit == 0 && (range.end % unit == 0 || range.end == size)
        do throws(IOError) {
            if isAligned && isZero(bytes) {
                try device.zero(range)
                count { counts, map in
                    counts.zeroed += range.length
                    map.mark(range, .transferred)
                }
            } else {
                if isAligned {
                    try device.write(bytes, at: offset)
                } else {
                    try edges.withLock { _ throws(IOError) in try patch(bytes, range, memory) }
                }
                count { counts, map in
                    counts.written += range.length
                    map.mark(range, .transferred)
                }
            }
            if flushing { try device.flush() }
        } catch {
            throw Problem(error)
        }
    }

    /// Writes a range whose first and last sectors may change in part.
    private func patch(
        _ bytes: UnsafeRawBufferPointer, _ range: ByteRange,
        _ memory: UnsafeMutableRawBufferPointer
    ) throws(IOError) {
        let unit = device.geometry.alignment
        var offset = range.offset
        while offset < range.end {
            let start = offset / unit * unit
            let end = min(
                (range.end + unit - 1) / unit * unit, start + memory.count / unit * unit,
                device.geometry.size)
            let part = ByteRange(offset, to: min(end, range.end))
            let staging = UnsafeMutableRawBufferPointer(rebasing: memory[..<(end - start)])
            let last = (end - 1) / unit * unit
            if part.offset > start {
                try device.read(into: slice(staging, 0, min(unit, end - start)), at: start)
            }
            if part.end < end && (last > start || part.offset == start) {
                try device.read(into: slice(staging, last - start, end - start), at: last)
            }
            slice(staging, part.offset - start, staging.count)
                .copyMemory(from: slice(bytes, offset - range.offset, part.end - range.offset))
            try device.write(UnsafeRawBufferPointer(staging), at: start)
            offset = part.end
        }
    }

    /// Resizes an image to `size` bytes and flushes it; refuses a block device of another size.
    ///
    /// - Throws: 403 for an append-only token if the image is larger, 409, and the device's error.
    func resize(to size: Int, for grant: Grant) throws(Problem) {
        try edges.withLock { _ throws(Problem) in
            // Another request of the client may have extended the image while this one waited.
            let now = device.geometry.size
            try grant.checkSize(size, now: now, name)
            guard size != now else { return }
            guard device.isImage else {
                throw Self.refusal(
                    name, .size,
                    "it has \(now) bytes, the source \(size), and it cannot be resized")
            }
            do throws(IOError) { try device.resize(to: size) } catch { throw Problem(error) }
        }
        do throws(IOError) { try device.flush() } catch { throw Problem(error) }
    }
}
