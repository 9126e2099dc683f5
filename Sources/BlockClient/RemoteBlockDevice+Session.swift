// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import DeviceProbe
internal import LinuxIO
internal import Synchronization
internal import WireProtocol

/// The session: opened again where it is lost, and ended.
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
            do throws(ProbeError) { new = try openAgain(again) } catch { throw asIOError(error) }
            let isSame = new.device == record.device && new.host == record.host
            guard isSame || mayBeAnother && new.created == true, new.block == record.block,
                new.region == record.region, new.alignment == record.alignment,
                // A cut that is asked for may have been made before the server ended, or not.
                [record.size, state.withLock({ $0.size })].contains(new.size)
            else {
                let body = ResponseBody(limit: Limits.json)
                _ = try? server.send(
                    HTTPRequest(.delete, Route.session(new.session).path), "release", into: body)
                throw .network(
                    name, "open again", reason: "the server has another device under that name now")
            }
            state.withLock { state in
                if !isSame { state.record = new }
                state.session = new.session
                state.generation += 1
            }
        }
    }

    /// Asks for the same device; for a volume that is yet to be used, if need be, as at first: the
    /// server has removed it when it lost the session.
    private func openAgain(_ again: SessionRequest) throws(ProbeError) -> SessionRecord {
        do throws(ProbeError) { return try Self.open(server, record.device, again) } catch {
            guard case .failed = error, mayBeAnother, let selector = server.location.selector
            else { throw error }
            return try Self.open(server, selector, again)
        }
    }

    /// Whether the device was made for this run, and nobody has seen what is on it.
    private var mayBeAnother: Bool {
        request.create == true && state.withLock { $0.record.created == true && !$0.isUsed }
    }

    /// Whether the device of before is still what the server has under its name.
    private func isSameDevice(_ host: HostRecord) -> Bool {
        // The server compares nothing: a read session tells where the name leads now.
        var probe = request
        probe.mode = .read
        probe.source = nil
        probe.snapshot = nil
        probe.keep = nil
        probe.taken = nil
        probe.run = nil
        guard let seen = try? Self.open(server, record.device, probe) else { return false }
        let body = ResponseBody(limit: Limits.json)
        _ = try? server.send(
            HTTPRequest(.delete, Route.session(seen.session).path), "release", into: body)
        return seen.host == host
    }

    /// A sign of life.
    func touch() {
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
        let (session, generation, isReleased) = state.withLock { state in
            defer { state.isReleased = true }
            return (state.session, state.generation, state.isReleased)
        }
        guard !isReleased else { return [] }
        guard isComplete else {
            let body = ResponseBody(limit: Limits.json)
            _ = try? server.send(
                HTTPRequest(.delete, Route.session(session).path, silence: Self.flushSilence),
                "release", into: body)
            return []
        }
        do throws(ProbeError) { return try commit(session, release: true, size: nil) } catch {
            // What was written is on the medium. But it is now that older snapshots go, and that a volume
            // that was made stays though nothing had to be written to it.
            guard request.mode == .write, request.taken != nil || record.created == true else {
                return []
            }
            return commitAgain(after: asIOError(error), generation)
        }
    }

    /// Ends a session that the server has lost, or has ended without that being heard; then it is
    /// done twice.
    private func commitAgain(after failure: IOError, _ generation: Int) -> [String] {
        do throws(IOError) {
            guard failure.isNetwork, failure.operation == RemoteServer.noSession else {
                throw failure
            }
            try reopen(after: generation)
            let session = state.withLock { $0.session }
            do throws(ProbeError) { return try commit(session, release: true, size: nil) } catch {
                throw asIOError(error)
            }
        } catch {
            return [
                request.taken == nil
                    ? "it may be gone: \(error.reason)"
                    : "older snapshots may stay: \(error.reason)"
            ]
        }
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
