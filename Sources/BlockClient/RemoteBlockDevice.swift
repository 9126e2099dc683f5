// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices
package import DeviceProbe
package import Digests
internal import Glibc
internal import LinuxIO
internal import SyncEngine
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

    struct State {
        var session: String
        var size: Int
        var generation = 0
        var pendingSize: Int?
        var isReleased = false
        var stamp: [Int]?
        var stampTime: ContinuousClock.Instant?
    }
    /// Where the data is, as far as it was asked for last.
    struct KnownMap {
        var start: Int
        var map: DataMap
        /// Where the last byte written since lies: below it there may be data that it lacks.
        var writtenTo = 0
    }
    let state: Mutex<State>
    /// Held while the session is opened again.
    private let reopening = Mutex(())
    let channels = Mutex<[Channel]>([])
    let map = Mutex<KnownMap?>(nil)
    private let keeper: SessionKeeper

    /// Opens a session on the device that the server's URL names.
    ///
    /// - Parameters:
    ///   - server: where.
    ///   - purpose: what for.
    ///   - method: the digest; `nil` for the fastest that both have.
    /// - Throws: the refusal of the server's gate, with the user's name for the device; the errors
    ///   of the device and of the network.
    package init(
        _ server: RemoteServer, for purpose: Purpose, digest method: DigestMethod?
    ) throws(ProbeError) {
        let name = server.location.text
        guard let selector = server.location.selector else {
            throw .failed(
                .network(
                    name, "open", reason: "the URL names no device",
                    advice: "blkferry list \(name) shows what there is."))
        }
        let offered = try Self.offered(method, name)
        var request = SessionRequest(
            mode: purpose.mode, block: purpose.block, digest: offered.method.name, key: nil)
        request.fasterDigests = offered.faster
        let key: DigestKey?
        do throws(DigestError) {
            key = method?.isKeyed ?? true ? try DigestKey() : nil
            request.key = key?.withUnsafeBytes { hexadecimal($0) }
            request.run = try DigestKey().withUnsafeBytes { hexadecimal($0.prefix(16)) }
        } catch {
            throw .failed(IOError(name, error.operation, reason: error.reason))
        }
        request.source = purpose.source.map {
            SourceRecord($0, boot: readSmallFile("/proc/sys/kernel/random/boot_id"))
        }
        request.set(purpose.policy)
        if purpose.policy?.concernsVolumes == true { try server.requireVolumes() }
        let record = try Self.open(server, selector, request)
        // Who opens the session again needs the same, whatever that server would choose.
        request.digest = record.digest ?? request.digest
        request.fasterDigests = nil
        // It is there now.
        request.snapshot = nil
        request.keep = nil
        do throws(DigestError) { digestMethod = try DigestMethod(named: request.digest) } catch {
            throw .failed(IOError(name, error.operation, reason: error.reason))
        }
        self.name = name
        self.server = server
        self.request = request
        self.record = record
        digestKey = key
        state = Mutex(
            State(session: record.session, size: record.size, stamp: record.stamp))
        keeper = SessionKeeper()
        keeper.start(every: min(20, max(0.2, (record.timeout ?? 60) / 3))) { [weak self] in
            self?.touch()
        }
    }

    deinit { keeper.stop() }

    /// What the server may choose from: nothing that this libcrypto does not have.
    ///
    /// - Returns: the method for every server, and faster ones where the user leaves the choice.
    private static func offered(
        _ method: DigestMethod?, _ name: String
    ) throws(ProbeError) -> (method: DigestMethod, faster: [String]?) {
        if let method { return (method, nil) }
        let faster = DigestMethod.fasterOnes.map(\.name).filter {
            (try? DigestMethod(named: $0)) != nil
        }
        do throws(DigestError) {
            let method = try DigestMethod(named: DigestMethod.poly1305.name)
            return (method, faster.isEmpty ? nil : faster)
        } catch {
            throw .failed(
                IOError(
                    name, error.operation, reason: "\(error.object): \(error.reason)",
                    advice: "-m NAME chooses another digest."))
        }
    }

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

    /// What a lying server could make us divide by, or allocate.
    private static func isSane(_ record: SessionRecord, _ request: SessionRequest) -> Bool {
        let sizes = 0...Geometry.maximumSize
        guard sizes.contains(record.size), record.alignment > 0,
            record.alignment <= 1 << 20, record.alignment.nonzeroBitCount == 1,
            record.block >= request.block, record.block % request.block == 0,
            record.block % record.alignment == 0,
            sizes.contains(record.sizeBefore ?? 0), sizes.contains(record.resizeTo ?? 0),
            record.logicalSector.map({ $0 >= 512 && $0.nonzeroBitCount == 1 }) ?? true,
            (try? record.content.content()) != nil,
            record.digest == nil || record.digest == request.digest
                || request.fasterDigests?.contains(record.digest ?? "") == true
        else { return false }
        return (try? WireLayout(block: record.block, region: record.region, digestSize: 16)) != nil
    }

    package var geometry: Geometry {
        // Blocks that the server has raised may be larger than what it tells of its transfers: they
        // are the chunks of a thin pool then.
        Geometry(
            size: state.withLock { $0.size }, logicalSector: record.logicalSector ?? 512,
            alignment: record.block > request.block ? record.block : record.alignment)
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
                // A cut that is asked for may have been made before the server ended, or not.
                [record.size, state.withLock({ $0.size })].contains(new.size),
                new.host == record.host
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
        guard let session, server.canTouch else { return }
        let body = ResponseBody(limit: Limits.json)
        _ = try? server.send(
            HTTPRequest(.get, Route.session(session).path, isRetried: false), "keep session",
            into: body)
    }

    /// Asks what the device is like now.
    func currentRecord() throws(IOError) -> SessionRecord {
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
    /// - Returns: what the user should know of it, one line each.
    @discardableResult package func release(isComplete: Bool) -> [String] {
        keeper.stop()
        guard
            let session = state.withLock({ state -> String? in
                if state.isReleased { return nil }
                state.isReleased = true
                return state.session
            })
        else { return [] }
        guard isComplete else {
            let body = ResponseBody(limit: Limits.json)
            _ = try? server.send(
                HTTPRequest(.delete, Route.session(session).path, silence: Self.flushSilence),
                "release", into: body)
            return []
        }
        return (try? commit(session, release: true, size: nil)) ?? []
    }

    /// Seconds that a disk may take to write what its cache holds.
    private static let flushSilence = 600.0

    /// - Returns: what the server has to say of it, one line each.
    @discardableResult
    func commit(_ session: String, release: Bool, size: Int?) throws(ProbeError) -> [String] {
        let bytes = WireJSON.encode(CommitRequest(size: size, release: release))
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 8)
        defer { memory.deallocate() }
        memory.copyBytes(from: bytes)
        let body = ResponseBody(limit: Limits.json)
        let response = try server.send(
            HTTPRequest(
                .post, Route.commit(session: session).path, contentType: MediaType.json,
                body: UnsafeRawBufferPointer(memory), silence: Self.flushSilence),
            "flush", into: body)
        // Nothing, where there is nothing to say.
        guard response.contentType.hasPrefix(MediaType.json),
            let record = try? WireJSON.decode(CommitRecord.self, from: body.bytes)
        else { return [] }
        return record.warnings ?? []
    }
}
