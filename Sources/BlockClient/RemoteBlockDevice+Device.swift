// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices
internal import DeviceProbe
package import LinuxIO
package import SyncEngine
internal import Synchronization
internal import WireProtocol

/// The remote device as any other device.
extension RemoteBlockDevice {
    package var traffic: (sent: Int, received: Int) { server.traffic }

    package func read(into buffer: UnsafeMutableRawBufferPointer, at offset: Int) throws(IOError) {
        try withChannel { channel throws(IOError) in
            var done = 0
            while done < buffer.count {
                let length = min(buffer.count - done, Limits.payload)
                let payload = try channel.read([ByteRange(offset: offset + done, length: length)])
                var position = 0
                for extent in payload.extents {
                    let start = extent.range.offset - offset
                    let part = UnsafeMutableRawBufferPointer(
                        rebasing: buffer[start..<start + extent.range.length])
                    if extent.kind == .zero {
                        part.initializeMemory(as: UInt8.self, repeating: 0)
                    } else {
                        part.copyMemory(
                            from: UnsafeRawBufferPointer(
                                rebasing: payload.data[position..<position + part.count]))
                        position += part.count
                    }
                }
                done += length
            }
        }
    }

    package func write(_ buffer: UnsafeRawBufferPointer, at offset: Int) throws(IOError) {
        try write(
            [Extent(ByteRange(offset: offset, length: buffer.count), .data)], of: buffer,
            at: offset)
    }

    package func zero(_ range: ByteRange) throws(IOError) {
        try write([Extent(range, .zero)], of: nil, at: range.offset)
    }

    package func write(
        _ extents: [Extent], of bytes: UnsafeRawBufferPointer?, at offset: Int
    ) throws(IOError) {
        try withChannel { channel throws(IOError) in
            for request in extents.inRequests(unit: record.block) {
                let parts = request.filter { $0.kind == .data }.map { extent in
                    guard let bytes else { preconditionFailure("data without bytes") }
                    let start = extent.range.offset - offset
                    return UnsafeRawBufferPointer(
                        rebasing: bytes[start..<start + extent.range.length])
                }
                try channel.write(request, parts)
            }
        }
    }

    package func nextData(from offset: Int) throws(IOError) -> ByteRange? {
        let size = geometry.size
        guard offset < size else { return nil }
        // A block device does not know.
        guard record.kind == "image" else { return ByteRange(offset, to: size) }
        var position = offset
        while position < size {
            let known = map.withLock { $0 }
            let part: KnownMap
            if let known, max(known.start, known.writtenTo) <= position, position < known.map.end {
                part = known
            } else {
                let range = ByteRange(position, to: size)
                let fresh = try withChannel { channel throws(IOError) in try channel.map(range) }
                part = KnownMap(start: position, map: fresh)
                map.withLock { $0 = part }
            }
            if let run = part.map.runs.first(where: { $0.end > position }) {
                return ByteRange(max(run.offset, position), to: run.end)
            }
            position = part.map.end
        }
        return nil
    }

    /// Takes note that the device's content is known, or was written.
    package func noteUse() { state.withLock { $0.isUsed = true } }

    /// Takes note of a write, of which the known map cannot know.
    func noteWrite(to end: Int) {
        map.withLock { known in
            if let writtenTo = known?.writtenTo { known?.writtenTo = max(writtenTo, end) }
        }
    }

    package func resize(to size: Int) throws(IOError) {
        state.withLock { state in
            state.pendingSize = size
            state.size = size
        }
    }

    package func flush() throws(IOError) {
        let size = state.withLock { $0.pendingSize }
        _ = try within { session throws(ProbeError) in
            try commit(session, release: false, size: size)
        }
        state.withLock { $0.pendingSize = nil }
    }

    package func checkSize() throws(IOError) {
        let now = try currentRecord().size
        let before = state.withLock { $0.size }
        guard now != before else { return }
        throw IOError(
            name, "read", reason: "its size has changed from \(before) to \(now) bytes meanwhile")
    }

    package func contentStamp() -> ContentStamp? {
        let (stamp, time) = state.withLock { ($0.stamp, $0.stampTime) }
        let isFresh = time.map { ContinuousClock().now - $0 < .milliseconds(500) } ?? false
        let isFirst = time == nil && stamp != nil
        if isFirst {
            state.withLock { $0.stampTime = ContinuousClock().now - .seconds(3600) }
            return stamp.map { ContentStamp($0) }
        }
        if isFresh { return stamp.map { ContentStamp($0) } }
        return (try? currentRecord())?.stamp.map { ContentStamp($0) }
    }

    /// What is kept from one run to another, and changes when anybody writes to the device, as the
    /// server tells it now.
    ///
    /// - Returns: the marks; `nil` where the server has none.
    /// - Throws: where it cannot be asked.
    package func currentMarks() throws(IOError) -> [Int]? { try currentRecord().lastingStamp }

    /// Whether the session was lost, and opened again: for a while the server did not keep others from
    /// writing.
    package var wasReopened: Bool { state.withLock { $0.generation > 0 } }

    package func openChannel() -> any RemoteChannel { Channel(self) }

    private func withChannel<Result>(
        _ body: (Channel) throws(IOError) -> Result
    ) throws(IOError) -> Result {
        let channel = channels.withLock { $0.popLast() } ?? Channel(self)
        defer { channels.withLock { $0.append(channel) } }
        return try body(channel)
    }
}
