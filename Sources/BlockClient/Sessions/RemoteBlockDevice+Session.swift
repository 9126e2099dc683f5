// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import LinuxIO
internal import Synchronization
internal import WireProtocol

/// Opens a new session if the server has lost the session.
///
/// What the run learned of a target, and wrote to it, counts in the new session only if the
/// target's change counter proves that no other program wrote to it in between. Without that proof
/// everything is compared again, and the gate checks the target like any other.
extension RemoteBlockDevice {
    /// Runs a body within the session, and opens a new session if the server has lost it.
    ///
    /// - Throws: also if everything must be compared again, until `takeRestart()` is called.
    func within<Result>(
        _ body: (_ session: String) throws(IOError) -> Result
    ) throws(IOError) -> Result {
        var attempts = 0
        while true {
            let (session, generation, isReleased) = try usableSession()
            do throws(IOError) {
                try askWhereLate(session)
                let result = try body(session)
                state.withLock { $0.lastAnswer = .now }
                return result
            } catch {
                attempts += 1
                guard error.kind == .noSession, attempts < 4, !isReleased else {
                    throw withinRun(error)
                }
                try reopen(after: generation)
            }
        }
    }

    private func usableSession() throws(IOError) -> (String, generation: Int, isReleased: Bool) {
        let (session, generation, isReleased, failure) = state.withLock { state in
            let failure = state.failure ?? (state.needsRestart ? restart : nil)
            return (state.session, state.generation, state.isReleased, failure)
        }
        if let failure { throw failure }
        return (session, generation, isReleased)
    }

    /// Checks that a writing session still exists if the server was silent for longer than the
    /// session's timeout, such as after a suspend of this machine.
    ///
    /// The clock continues while the machine is suspended and while the process is stopped
    /// (CLOCK_BOOTTIME).
    private func askWhereLate(_ session: String) throws(IOError) {
        guard request.mode == .write else { return }
        let silence = state.withLock { state in
            state.record.timeout.map { (state.lastAnswer, $0) }
        }
        guard let (last, timeout) = silence, (ContinuousClock.now - last) / .seconds(1) > timeout
        else { return }
        _ = try server.json(
            HTTPRequest(.get, Route.session(session).path), "find session", SessionRecord.self)
    }

    /// The error of every request until everything is compared again.
    private var restart: IOError {
        .network(
            name, "write",
            reason: "its session has ended, and it is unknown whether another program has written "
                + "to it since",
            advice: "Run it again: it compares everything.")
    }

    package func takeRestart() -> Bool {
        state.withLock { state in
            defer { state.needsRestart = false }
            return state.needsRestart
        }
    }

    /// Turns a refusal into an error of the connection, because the run has already begun.
    private func withinRun(_ error: IOError) -> IOError {
        guard let cause = error.cause else { return error }
        var advice = error.advice
        if cause == .signature {
            advice = [advice, "It may be this run's own unfinished replica."]
                .compactMap { $0 }.joined(separator: " ")
        }
        let start = cause == .changed ? "" : "the session has ended, and "
        return .network(
            name, "open again", reason: "\(start)\(error.reason); nothing more was written",
            advice: advice)
    }

    /// Opens a new session, unless another thread has just done so.
    ///
    /// A failure ends the run. Nothing is retried after it.
    private func reopen(after generation: Int) throws(IOError) {
        try reopening.withLock { _ throws(IOError) in
            let isDone = state.withLock { $0.generation != generation || $0.failure != nil }
            guard !isDone else { return }
            do throws(IOError) { try openAnother() } catch {
                if !server.options.isCancelled() { state.withLock { $0.failure = error } }
                throw error
            }
        }
    }

    private func openAnother() throws(IOError) {
        let before = record
        var again = request
        if request.mode == .write && !mayBeAnother {
            again.continues = SessionRequest.Continuation(host: before.host)
        }
        let new: SessionRecord
        do throws(IOError) { new = try openAgain(again) } catch { throw withinRun(error) }
        let isSame = new.device.isSame(as: before.device) && new.host == before.host
        guard isSame || mayBeAnother && new.created == true, new.block == before.block,
            new.region == before.region, new.alignment == before.alignment,
            // A requested shrink may or may not have happened before the session ended.
            [before.size, state.withLock({ $0.size })].contains(new.size)
        else {
            abandon(new.session)
            throw .network(
                name, "open again", reason: "the server has another device under that name now")
        }
        guard (new.zstd == nil) == (before.zstd == nil) else {
            abandon(new.session)
            throw .network(
                name, "open again",
                reason: "the session has ended, and the server's libzstd has come or gone since",
                advice: "Run it again.")
        }
        if request.mode != .write, let reason = Self.reasonToEnd(before, new) {
            abandon(new.session)
            throw .network(
                name, "open again",
                reason: "the session has ended, and \(reason) since the run began",
                advice: "Run it again. If the device is in use, read a snapshot of it.")
        }
        let isProven = new.unchanged == true
        let restarts = state.withLock { state in
            if !isSame { state.record = new }
            state.session = new.session
            state.generation += 1
            state.lastAnswer = .now
            state.recordOfFlush = nil
            if !isProven { state.hasGap = true }
            state.needsRestart = !isProven && request.mode == .write && state.isUsed
            return state.needsRestart
        }
        if !isProven { map.withLock { $0 = nil } }
        claim?.hold(new.session)
        guard request.mode == .write else { return }
        server.note(
            "the session had ended; "
                + (isProven
                    ? "no other program has written to the target since"
                    : restarts
                        ? "everything is compared again" : "another one was opened"))
    }

    /// Why data that was read before a session ended may not fit what is read from now on; `nil` if
    /// the change counter proves that it does.
    private static func reasonToEnd(_ before: SessionRecord, _ new: SessionRecord) -> String? {
        guard let then = before.lastingStamp, let now = new.lastingStamp else {
            return "it is unknown whether another program has written to it"
        }
        let isUnchanged = ChangeCounter(now, since: new.lastingSince).equivalents.contains(then)
        return isUnchanged ? nil : "another program has written to it"
    }

    /// Opens the same device, or creates an unused volume of this run again if the server removed
    /// it with the lost session.
    private func openAgain(_ again: SessionRequest) throws(IOError) -> SessionRecord {
        do throws(IOError) { return try Self.open(server, record.device, again) } catch {
            guard error.cause == nil, mayBeAnother, let selector = server.location.selector
            else { throw error }
            return try Self.open(server, selector, again)
        }
    }

    /// Whether the device was created for this run and is still unused.
    private var mayBeAnother: Bool {
        request.create == true && state.withLock { $0.record.created == true && !$0.isUsed }
    }

    /// Ends a session without a commit.
    private func abandon(_ session: String) {
        let body = ResponseBody(limit: Limits.json)
        _ = try? server.send(
            HTTPRequest(.delete, Route.session(session).path, silence: Self.flushSilence),
            "release", .nothing, into: body)
    }

    func touch() {
        let session = state.withLock { $0.isReleased ? nil : $0.session }
        guard let session, server.canTouch else { return }
        let body = ResponseBody(limit: Limits.json)
        let request = HTTPRequest(.get, Route.session(session).path, isRetried: false)
        guard (try? server.send(request, "keep session", .json, into: body)) != nil else { return }
        state.withLock { if $0.session == session { $0.lastAnswer = .now } }
    }

    func currentRecord() throws(IOError) -> SessionRecord {
        if let record = state.withLock({ $0.recordOfFlush.take() }) { return record }
        return try within { session throws(IOError) in
            let record = try server.json(
                HTTPRequest(.get, Route.session(session).path), "get status", SessionRecord.self)
            return try checked(record, of: session, "get status")
        }
    }

    /// Takes the change counter of a current record, which must be that of a session.
    func checked(
        _ record: SessionRecord, of session: String, _ operation: String
    ) throws(IOError) -> SessionRecord {
        do throws(WireError) {
            try record.checkNow()
            guard record.session == session, record.device.isSame(as: self.record.device) else {
                throw WireError("the record is that of another session or device")
            }
        } catch {
            throw RemoteServer.invalid(error, name, operation)
        }
        state.withLock { state in
            state.counter = record.stamp
            if let undo = record.undo { state.undo = undo.shortened }
            state.counterTime = ContinuousClock().now
        }
        return record
    }

    /// Ends the session, with a commit if the run is complete; returns warnings for the user.
    @discardableResult package func release(isComplete: Bool) -> [String] {
        keeper.stop()
        defer { claim?.release() }
        let (session, generation, isReleased) = state.withLock { state in
            defer { state.isReleased = true }
            return (state.session, state.generation, state.isReleased)
        }
        guard !isReleased else { return [] }
        guard isComplete else {
            abandon(session)
            return []
        }
        do throws(IOError) { return try finalCommit(session) } catch {
            // The data is durable already. But this commit also removes older snapshots and what
            // the target had behind the replica, and makes the server keep a created volume even
            // if nothing was written to it.
            guard request.mode == .write else { return [] }
            let reason = withinRun(error)
            if request.taken != nil || record.created == true {
                return commitAgain(after: reason, generation)
            }
            // Another session would take a moved backup GPT for a leftover.
            let isLarger = record.size > request.source?.size ?? .max
            return isLarger
                ? ["what it had behind the replica may still be there: \(reason.reason)"] : []
        }
    }

    /// Repeats the final commit in a new session if the server lost the session, or if the answer
    /// to the first commit was lost; a commit may run twice.
    private func commitAgain(after failure: IOError, _ generation: Int) -> [String] {
        do throws(IOError) {
            guard failure.kind == .noSession else { throw failure }
            try reopen(after: generation)
            let session = state.withLock { $0.session }
            return try finalCommit(session)
        } catch {
            return [
                (request.taken == nil ? "it may be gone: " : "older snapshots may stay: ")
                    + withinRun(error).reason
            ]
        }
    }

    /// Seconds that a disk may take to write out its cache.
    static let flushSilence = 600.0

    /// Ends a session, and returns the server's warnings for the user.
    private func finalCommit(_ session: String) throws(IOError) -> [String] {
        let record = try commit(session, CommitRequest(release: true))
        if let undo = record?.undo { state.withLock { $0.undo = undo.shortened } }
        return record?.warnings?.shortened ?? []
    }

    /// - Returns: the server's answer; `nil` if it is empty.
    func commit(_ session: String, _ request: CommitRequest) throws(IOError) -> CommitRecord? {
        let bytes = WireJSON.encode(request)
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 8)
        defer { memory.deallocate() }
        memory.copyBytes(from: bytes)
        let body = ResponseBody(limit: Limits.answer)
        let response = try server.send(
            HTTPRequest(
                .post, Route.commit(session: session).path, contentType: MediaType.json,
                body: UnsafeRawBufferPointer(memory), silence: Self.flushSilence),
            "flush", .nothingOrJSON, into: body)
        guard response.status == 200 else { return nil }
        do throws(WireError) {
            let record = try WireJSON.decode(CommitRecord.self, from: body.bytes)
            guard record.warnings != nil else { throw WireError("warnings is missing") }
            return record
        } catch {
            throw RemoteServer.invalid(error, name, "flush")
        }
    }
}

extension UndoRecord {
    /// A file's name has 255 bytes at most.
    fileprivate var shortened: UndoRecord {
        UndoRecord(
            journal: String(String.UnicodeScalarView(journal.unicodeScalars.prefix(255))),
            bytes: max(0, bytes), usable: usable)
    }
}
