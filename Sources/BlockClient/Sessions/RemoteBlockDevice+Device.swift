// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices
package import LinuxIO
package import SyncEngine
internal import Synchronization
internal import WireProtocol

extension RemoteBlockDevice {
    package var requestLimit: Int { Limits.payload }

    package var extentLimit: Int { Limits.extents }

    package var longRoundTrip: Double? { server.transport.longRoundTrip }

    package var traffic: (sent: Int, received: Int)? { server.traffic }

    package var isImage: Bool { record.kind == "image" }

    package func read(into buffer: UnsafeMutableRawBufferPointer, at offset: Int) throws(IOError) {
        try withChannel { channel throws(IOError) in
            var done = 0
            while done < buffer.count {
                let length = min(buffer.count - done, Limits.payload)
                let payload = try channel.read([ByteRange(offset: offset + done, length: length)])
                payload.copy(to: slice(buffer, done, done + length))
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
            let requests = requests(
                for: extents, unit: record.block, alignments: [geometry.alignment])
            for request in requests {
                let parts = request.filter { $0.kind == .data }.map { extent in
                    guard let bytes else { preconditionFailure("data without bytes") }
                    let start = extent.range.offset - offset
                    return slice(bytes, start, start + extent.range.length)
                }
                try channel.write(request, parts)
            }
        }
    }

    package func nextData(from offset: Int) throws(IOError) -> ByteRange? {
        let size = geometry.size
        guard offset < size else { return nil }
        // A block device does not report holes.
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

    /// Records that the run knows some of the device's content or has written to it.
    package func noteUse() {
        state.withLock { state in
            state.isUsed = true
            state.recordOfFlush = nil
        }
    }

    /// Records a write, which the known map may lack.
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
        let record = try within { session throws(IOError) in
            let answer = try commit(
                session, CommitRequest(size: size, release: false, status: true))
            return try answer?.status.map { record throws(IOError) in
                try checked(record, of: session, "flush")
            }
        }
        state.withLock { state in
            state.pendingSize = nil
            state.recordOfFlush = record
        }
    }

    /// Checks the size, and whether another process wrote to the device, on the server's side.
    package func checkIdentity() throws(IOError) {
        let record = try currentRecord()
        let before = state.withLock { state in
            if record.writtenByOthers == true { state.hasForeignWrites = true }
            if record.openedByOthers == true { state.hadOtherWriters = true }
            return state.size
        }
        guard record.size != before else { return }
        throw IOError(
            name, "check at the end",
            reason: "its size has changed from \(before) to \(record.size) bytes during the run")
    }

    /// Whether another process wrote to the device, as of the last `checkIdentity`.
    package func hasForeignWrites() -> Bool { state.withLock { $0.hasForeignWrites } }

    /// Whether the server asks for a comparison, as of the last `checkIdentity`.
    ///
    /// The server reports all writers since the session began, so only the change counter shows
    /// whether they wrote again.
    package func hadOtherWriters() -> Bool {
        state.withLock { state in
            guard state.hadOtherWriters else { return false }
            defer { state.counterOfWriters = state.counter }
            return state.counter == nil || state.counter != state.counterOfWriters
        }
    }

    package func changeCounter() -> ChangeCounter? {
        let (counter, time) = state.withLock { ($0.counter, $0.counterTime) }
        let isFresh = time.map { ContinuousClock().now - $0 < .milliseconds(500) } ?? false
        let isFirst = time == nil && counter != nil
        if isFirst {
            state.withLock { $0.counterTime = ContinuousClock().now - .seconds(3600) }
            return counter.map { ChangeCounter($0) }
        }
        if isFresh { return counter.map { ChangeCounter($0) } }
        return (try? currentRecord())?.stamp.map { ChangeCounter($0) }
    }

    /// Always `nil`: reading it may fail, so `currentCounter` is called instead.
    package func persistentChangeCounter() -> ChangeCounter? { nil }

    package var reasonForNoCounter: String? { nil }

    /// Reads the device's persistent change counter from the server; `nil` if the device has none.
    package func currentCounter() throws(IOError) -> ChangeCounter? {
        let record = try currentRecord()
        return record.lastingStamp.map { ChangeCounter($0, since: record.lastingSince) }
    }

    /// Reads the target's persistent change counter from the server, if it is known that only this
    /// session has written to it since the session began; `nil` otherwise.
    package func counterOfOnlyWriter() throws(IOError) -> ChangeCounter? {
        let record = try currentRecord()
        guard record.onlyOwnWriters == true else { return nil }
        return record.lastingStamp.map { ChangeCounter($0, since: record.lastingSince) }
    }

    /// Whether a session ended during the run and another program may have written to the device
    /// before the next one began.
    package var hasGap: Bool { state.withLock { $0.hasGap } }

    package func openChannel() -> any RemoteChannel { SessionConnection(self) }

    private func withChannel<Result>(
        _ body: (SessionConnection) throws(IOError) -> Result
    ) throws(IOError) -> Result {
        let channel = channels.withLock { $0.popLast() } ?? SessionConnection(self)
        defer { channels.withLock { $0.append(channel) } }
        return try body(channel)
    }
}
