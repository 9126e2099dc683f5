// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices
package import DeviceProbe
package import Digests
internal import Glibc
package import LinuxIO
package import SyncEngine
internal import Synchronization
package import WireProtocol

/// A device of a server, pinned by a session.
///
/// A session that is lost, because the server was started anew, is opened again, and the work goes
/// on; the device must be the same, and the gate there judges again.
package final class RemoteBlockDevice: RemoteDevice {
    /// What a session is for.
    package struct Purpose: Sendable {
        package var mode: SessionRequest.Mode
        /// Bytes.
        package var block: Int
        /// Of a target: what it is to become a replica of.
        package var source: SourceFacts?
        package var policy: GatePolicy?

        package init(
            mode: SessionRequest.Mode, block: Int, source: SourceFacts? = nil,
            policy: GatePolicy? = nil
        ) {
            self.mode = mode
            self.block = block
            self.source = source
            self.policy = policy
        }
    }

    package let name: String
    package let digestMethod: DigestMethod
    package let digestKey: DigestKey?
    /// What the server told when the session began.
    package let record: SessionRecord
    package let server: RemoteServer
    private let request: SessionRequest

    private struct State {
        var session: String
        var size: Int
        var generation = 0
        var pendingSize: Int?
        var isReleased = false
        var stamp: [Int]?
        var stampTime: ContinuousClock.Instant?
    }
    /// Where the data is, as far as it was asked for last.
    private struct KnownMap {
        var start: Int
        var map: DataMap
    }
    private let state: Mutex<State>
    /// Held while the session is opened again.
    private let reopening = Mutex(())
    private let channels = Mutex<[Channel]>([])
    private let map = Mutex<KnownMap?>(nil)
    private let keeper: SessionKeeper

    /// Opens a session on the device that the server's URL names.
    ///
    /// - Parameters:
    ///   - server: where.
    ///   - purpose: what for.
    ///   - method: the digest.
    /// - Throws: the refusal of the server's gate, with the user's name for the device; the errors
    ///   of the device and of the network.
    package init(
        _ server: RemoteServer, for purpose: Purpose, digest method: DigestMethod
    ) throws(ProbeError) {
        let name = server.location.text
        guard let selector = server.location.selector else {
            throw .failed(
                .network(
                    name, "open", reason: "the URL names no device",
                    advice: "blkferry list \(name) shows what there is."))
        }
        var request = SessionRequest(
            mode: purpose.mode, block: purpose.block, digest: method.name, key: nil)
        let key: DigestKey?
        do throws(DigestError) {
            key = method.isKeyed ? try DigestKey() : nil
            request.key = key?.withUnsafeBytes { hexadecimal($0) }
            request.run = try DigestKey().withUnsafeBytes { hexadecimal($0.prefix(16)) }
        } catch {
            throw .failed(IOError(name, error.operation, reason: error.reason))
        }
        request.source = purpose.source.map {
            SourceRecord($0, boot: readSmallFile("/proc/sys/kernel/random/boot_id"))
        }
        request.sizePolicy = purpose.policy?.sizePolicy?.rawValue
        request.overwrite = purpose.policy?.overwrite
        let record = try Self.open(server, selector, request)
        self.name = name
        self.server = server
        self.request = request
        self.record = record
        digestMethod = method
        digestKey = key
        state = Mutex(
            State(session: record.session, size: record.size, stamp: record.stamp))
        keeper = SessionKeeper()
        keeper.start(every: min(20, max(0.2, (record.timeout ?? 60) / 3))) { [weak self] in
            self?.touch()
        }
    }

    deinit { keeper.stop() }

    private static func open(
        _ server: RemoteServer, _ selector: String, _ request: SessionRequest
    ) throws(ProbeError) -> SessionRecord {
        let bytes = WireJSON.encode(request)
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 8)
        defer { memory.deallocate() }
        memory.copyBytes(from: bytes)
        let record = try server.json(
            HTTPRequest(
                .post, Route.sessions(device: selector).path, contentType: MediaType.json,
                body: UnsafeRawBufferPointer(memory), silence: 120),
            "open", SessionRecord.self)
        guard isSane(record, request) else {
            throw .failed(
                .network(
                    server.location.text, "open", reason: "the server's answer contradicts itself"))
        }
        return record
    }

    /// Bytes; beyond all devices, and so far from `Int.max` that no rounding up overflows.
    private static let maximumSize = 1 << 60

    /// What a lying server could make us divide by, or allocate.
    private static func isSane(_ record: SessionRecord, _ request: SessionRequest) -> Bool {
        guard (0...maximumSize).contains(record.size), record.alignment > 0,
            record.alignment <= 1 << 20, record.alignment.nonzeroBitCount == 1,
            record.block >= request.block, record.block % request.block == 0,
            record.block % record.alignment == 0,
            (0...maximumSize).contains(record.sizeBefore ?? 0),
            (0...maximumSize).contains(record.resizeTo ?? 0),
            record.logicalSector.map({ $0 >= 512 && $0.nonzeroBitCount == 1 }) ?? true,
            (try? record.content.content()) != nil
        else { return false }
        return (try? WireLayout(block: record.block, region: record.region, digestSize: 16)) != nil
    }

    package var geometry: Geometry {
        Geometry(
            size: state.withLock { $0.size }, logicalSector: record.logicalSector ?? 512,
            alignment: record.alignment)
    }

    /// What the gate on this side has to know of a source over there.
    package func sourceFacts() throws(ProbeError) -> SourceFacts {
        let content: Content
        do throws(WireError) { content = try record.content.content() } catch {
            throw .failed(.network(name, "open", reason: error.reason))
        }
        return SourceFacts(
            name: name, size: record.size, content: content, logicalSector: record.logicalSector,
            identity: record.host?.identity(boot: readSmallFile("/proc/sys/kernel/random/boot_id"))
        )
    }
}

// MARK: - Requests

extension RemoteBlockDevice {
    /// Does something within the session; opens it again where it is lost.
    func within<Result>(
        _ body: (_ session: String) throws(ProbeError) -> Result
    ) throws(IOError) -> Result {
        var attempts = 0
        while true {
            let (session, generation, isReleased) = state.withLock {
                ($0.session, $0.generation, $0.isReleased)
            }
            do throws(ProbeError) {
                return try body(session)
            } catch {
                let failure = asIOError(error)
                attempts += 1
                guard failure.isNetwork, failure.operation == RemoteServer.noSession,
                    attempts < 4, !isReleased
                else { throw failure }
                try reopen(after: generation)
            }
        }
    }

    private func asIOError(_ error: ProbeError) -> IOError {
        switch error {
        case .failed(let error): return error
        case .refused(let refusal):
            return .network(name, "open again", reason: refusal.reason, advice: refusal.advice)
        }
    }

    /// Opens the session again, unless another thread has just done so.
    private func reopen(after generation: Int) throws(IOError) {
        try reopening.withLock { _ throws(IOError) in
            guard state.withLock({ $0.generation }) == generation else { return }
            var again = request
            // The same machine, not started anew: the half-written target is still ours.
            if let host = record.host, host.device != nil, request.mode == .write,
                isSameDevice(host)
            {
                again.overwrite = true
            }
            let new: SessionRecord
            do throws(ProbeError) {
                new = try Self.open(server, record.device, again)
            } catch {
                throw asIOError(error)
            }
            guard new.device == record.device, new.block == record.block,
                new.size == state.withLock({ $0.size }), new.host == record.host
            else {
                let body = ResponseBody(limit: Limits.json)
                _ = try? server.send(
                    HTTPRequest(.delete, Route.session(new.session).path), "release", into: body)
                throw .network(
                    name, "open again", reason: "the server has another device under that name now")
            }
            state.withLock { state in
                state.session = new.session
                state.generation += 1
            }
        }
    }

    /// Whether the device of before is still what the server has under its name.
    private func isSameDevice(_ host: HostRecord) -> Bool {
        // The server compares nothing: a read session tells where the name leads now.
        var probe = request
        probe.mode = .read
        probe.source = nil
        probe.run = nil
        guard let seen = try? Self.open(server, record.device, probe) else { return false }
        let body = ResponseBody(limit: Limits.json)
        _ = try? server.send(
            HTTPRequest(.delete, Route.session(seen.session).path), "release", into: body)
        return seen.host == host
    }

    /// A sign of life.
    private func touch() {
        let session = state.withLock { $0.isReleased ? nil : $0.session }
        guard let session else { return }
        let body = ResponseBody(limit: Limits.json)
        _ = try? server.send(
            HTTPRequest(.get, Route.session(session).path, isRetried: false), "keep session",
            into: body)
    }

    /// Asks what the device is like now.
    private func currentRecord() throws(IOError) -> SessionRecord {
        let record = try within { session throws(ProbeError) in
            try server.json(
                HTTPRequest(.get, Route.session(session).path), "get status", SessionRecord.self)
        }
        state.withLock { state in
            state.stamp = record.stamp
            state.stampTime = ContinuousClock().now
        }
        return record
    }

    /// Ends the session.
    ///
    /// - Parameter isComplete: the run has done all that it should.
    package func release(isComplete: Bool) {
        keeper.stop()
        guard
            let session = state.withLock({ state -> String? in
                if state.isReleased { return nil }
                state.isReleased = true
                return state.session
            })
        else { return }
        let body = ResponseBody(limit: Limits.json)
        if isComplete {
            try? commit(session, release: true, size: nil)
        } else {
            _ = try? server.send(
                HTTPRequest(.delete, Route.session(session).path, silence: Self.flushSilence),
                "release", into: body)
        }
    }

    /// Seconds that a disk may take to write what its cache holds.
    private static let flushSilence = 600.0

    private func commit(_ session: String, release: Bool, size: Int?) throws(ProbeError) {
        let bytes = WireJSON.encode(CommitRequest(size: size, release: release))
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 8)
        defer { memory.deallocate() }
        memory.copyBytes(from: bytes)
        let body = ResponseBody(limit: Limits.json)
        _ = try server.send(
            HTTPRequest(
                .post, Route.commit(session: session).path, contentType: MediaType.json,
                body: UnsafeRawBufferPointer(memory), silence: Self.flushSilence),
            "flush", into: body)
    }
}

// MARK: - BlockDevice

extension RemoteBlockDevice {
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
            if let known, known.start <= position, position < known.map.end {
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

    package func resize(to size: Int) throws(IOError) {
        state.withLock { state in
            state.pendingSize = size
            state.size = size
        }
    }

    package func flush() throws(IOError) {
        let size = state.withLock { $0.pendingSize }
        try within { session throws(ProbeError) in
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

    package func openChannel() -> any RemoteChannel { Channel(self) }

    private func withChannel<Result>(
        _ body: (Channel) throws(IOError) -> Result
    ) throws(IOError) -> Result {
        let channel = channels.withLock { $0.popLast() } ?? Channel(self)
        defer { channels.withLock { $0.append(channel) } }
        return try body(channel)
    }
}
