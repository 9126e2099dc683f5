// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import DeviceProbe
internal import LinuxIO
internal import Synchronization
internal import WireProtocol

/// A request's use of a session, which lasts as long as this object.
final class SessionUse: Sendable {
    let session: Session

    /// - Parameter session: one on which `begin()` was called for this.
    init(begun session: Session) { self.session = session }

    deinit { session.finish() }
}

/// What requests without frames do to a target.
extension Session {
    static func refusal(_ name: String, _ cause: Refusal.Cause, _ reason: String) -> Problem {
        Problem(.refused(Refusal(cause, name, reason)))
    }

    static func beyondEnd(_ name: String, _ offset: Int, _ count: Int, size: Int) -> Problem {
        refusal(
            name, .size, "it has \(size) bytes, and \(count) at offset \(offset) are beyond that")
    }

    /// Writes bytes that need not be aligned, and waits until they are on the medium.
    ///
    /// - Parameters:
    ///   - bytes: in memory for direct I/O.
    ///   - offset: on the device.
    ///   - memory: of the thread.
    /// - Throws: a refusal of what is beyond the device's end, and the device's error.
    func writeThrough(
        _ bytes: UnsafeRawBufferPointer, at offset: Int, _ memory: UnsafeMutableRawBufferPointer
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
                count { $0.zeroed += range.length }
            } else {
                if isAligned {
                    try device.write(bytes, at: offset)
                } else {
                    try edges.withLock { _ throws(IOError) in try patch(bytes, range, memory) }
                }
                count { $0.written += range.length }
            }
            try device.flush()
        } catch {
            throw Problem(error)
        }
    }

    /// Writes sectors of which a part is to change, and those between.
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
            UnsafeMutableRawBufferPointer(rebasing: staging[(part.offset - start)...])
                .copyMemory(
                    from: UnsafeRawBufferPointer(
                        rebasing: bytes[(offset - range.offset)..<(part.end - range.offset)]))
            try device.write(UnsafeRawBufferPointer(staging), at: start)
            offset = part.end
        }
    }

    /// Gives an image a size, at once and on the medium.
    ///
    /// - Parameter size: in bytes.
    /// - Throws: a refusal for a device, unless it has that size.
    func resize(to size: Int) throws(Problem) {
        let now = device.geometry.size
        guard device is ImageFile || size == now else {
            throw Self.refusal(
                name, .size, "it has \(now) bytes, the source \(size), and it cannot be resized")
        }
        do throws(IOError) {
            try edges.withLock { _ throws(IOError) in
                if size != device.geometry.size { try device.resize(to: size) }
            }
            try device.flush()
        } catch {
            throw Problem(error)
        }
    }
}

private func slice(
    _ buffer: UnsafeMutableRawBufferPointer, _ start: Int, _ end: Int
) -> UnsafeMutableRawBufferPointer {
    UnsafeMutableRawBufferPointer(rebasing: buffer[start..<end])
}
