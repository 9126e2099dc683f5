// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import DeviceProbe
internal import Digests
internal import Glibc
internal import LinuxIO
internal import Logging
internal import Synchronization
internal import WireProtocol

/// The sessions of a server: who has which device, and when that ends.
///
/// Many may read a device; one may write it, and nobody beside.
final class SessionTable: Sendable {
    private enum Key: Hashable {
        case device(UInt64)
        case file(FileIdentity)
        case new(String)
    }
    private struct Claim {
        var key: Key
        var isWriting: Bool
        var peer: String
        var run: String?
        var grant: Grant
    }
    private struct State {
        var claims: [String: Claim] = [:]
        var sessions: [String: Session] = [:]
        var isClosed = false
    }
    private let state = Mutex(State())
    private let exports: ExportTable
    private let limit: Int
    private let silence: Duration
    private let logger: Logger
    private let boot: String?

    /// - Parameters:
    ///   - exports: what there is.
    ///   - limit: of sessions at once.
    ///   - silence: after which a session is released.
    ///   - logger: gets a line a session.
    init(exports: ExportTable, limit: Int, silence: Duration, logger: Logger) {
        self.exports = exports
        self.limit = limit
        self.silence = silence
        self.logger = logger
        boot = bootIdentifier()
    }

    /// Opens a device for a client.
    ///
    /// - Parameters:
    ///   - device: what the client calls it.
    ///   - request: what for.
    ///   - peer: the client's address.
    ///   - grant: what it may do.
    ///   - canCreate: whether a target that is not there may be created.
    ///   - briefSilence: after which the session is released as long as nothing was written;
    ///     `nil` for no other than all sessions have.
    /// - Returns: the session, and what the client is told of it.
    /// - Throws: why not: 404, 409, 423, 503 and the errors of the device.
    func open(
        _ device: String, _ request: SessionRequest, peer: String, _ grant: Grant,
        canCreate: Bool = true, briefSilence: Duration? = nil
    ) throws(Problem) -> Session {
        let isTarget = request.mode != .read
        waitForFirstAttempt(of: request, grant)
        let found = try exports.find(device, canCreate: isTarget && canCreate, for: grant)
        // A dry run is told what the real one would be told.
        if isTarget && found.access == .readOnly {
            let isTokens = grant.access == .readOnly
            var problem = Problem(
                .access, status: 403, "The export is read-only",
                detail: isTokens
                    ? "the token allows only reading" : "the server exports it read-only")
            problem.object = found.name
            problem.advice =
                isTokens ? nil : "The server's --export SELECTOR:rw allows writing."
            throw problem
        }
        try found.checkCreation(request)
        if let known = sessionOf(run: request.run, key(of: found), request.mode, grant) {
            return known
        }
        let id = try newIdentifier()
        let claim = Claim(
            key: key(of: found), isWriting: request.mode == .write, peer: peer, run: request.run,
            grant: grant)
        try take(claim, as: id, found)
        do throws(Problem) {
            let session = try open(
                id, found, request, claim, briefSilence: briefSilence.map { min($0, silence) })
            let isOpen = state.withLock { state in
                guard !state.isClosed else { return false }
                state.sessions[id] = session
                // What was created has an identity now.
                if let key = Self.key(of: session.record.host) { state.claims[id]?.key = key }
                return true
            }
            guard isOpen else { throw Self.closing }
            logger.info("session begins", metadata: metadata(session))
            return session
        } catch {
            state.withLock { $0.claims[id] = nil }
            throw error
        }
    }

    private static let closing = Problem(
        .busy, status: 503, "The server is ending", detail: "the server is ending")

    /// The session that a client has opened before without having heard of it.
    private func sessionOf(
        run: String?, _ key: Key, _ mode: SessionRequest.Mode, _ grant: Grant
    ) -> Session? {
        guard let run else { return nil }
        let known = state.withLock { state in
            state.sessions.values.first {
                $0.run == run && $0.mode == mode && $0.grant == grant
                    && state.claims[$0.id]?.key == key
            }
        }
        // Not one that is just being released for its silence.
        guard let known, known.begin() else { return nil }
        known.finish()
        return known
    }

    /// A client's session for a device; `nil` where there is none.
    func known(
        _ run: String, _ found: ExportTable.Found, _ mode: SessionRequest.Mode, _ grant: Grant
    ) -> Session? { sessionOf(run: run, key(of: found), mode, grant) }

    private func key(of found: ExportTable.Found) -> Key {
        switch found.identity {
        case .device(let number): .device(number)
        case .image(let file, _): .file(file)
        case .newImage, nil: .new(found.name)
        }
    }

    /// Waits until a session that the same client asked for before is open, or has ended.
    private func waitForFirstAttempt(of request: SessionRequest, _ grant: Grant) {
        guard let run = request.run else { return }
        while state.withLock({ state in
            state.claims.contains { id, claim in
                claim.run == run && claim.grant == grant
                    && claim.isWriting == (request.mode == .write)
                    && state.sessions[id]?.isEnded ?? true
            }
        }) {
            usleep(1000)
        }
    }

    private static func key(of host: HostRecord?) -> Key? {
        if let device = host?.device { return .device(device) }
        guard let fileSystem = host?.fileSystem, let inode = host?.inode else { return nil }
        return .file(FileIdentity(fileSystem: fileSystem, inode: inode))
    }

    private func take(
        _ claim: Claim, as id: String, _ found: ExportTable.Found
    ) throws(Problem) {
        let (other, isFull, isClosed) = state.withLock { state -> (Claim?, Bool, Bool) in
            if state.isClosed { return (nil, false, true) }
            let other = state.claims.values.first {
                $0.key == claim.key && ($0.isWriting || claim.isWriting)
            }
            let isFull = state.claims.count >= limit
            if other == nil && !isFull { state.claims[id] = claim }
            return (other, isFull, false)
        }
        if isClosed { throw Self.closing }
        if let other {
            var problem = Problem(
                .locked, status: 423, "The device is in use by another session",
                detail:
                    "a client at \(other.peer) is \(other.isWriting ? "writing to" : "reading") it")
            problem.object = found.name
            problem.cause = Refusal.Cause.locked.rawValue
            problem.advice =
                "Wait until that is done; a client that died is forgotten after "
                + "\(Int(silence / .seconds(1))) s."
            throw problem
        }
        if isFull {
            throw Problem(
                .busy, status: 503, "The server has no session to spare",
                detail: "the server has \(limit) sessions, and no more at once")
        }
    }

    private func open(
        _ id: String, _ found: ExportTable.Found, _ request: SessionRequest, _ claim: Claim,
        briefSilence: Duration?
    ) throws(Problem) -> Session {
        let method: DigestMethod
        var key: DigestKey?
        do throws(DigestError) {
            let faster = request.fasterDigests ?? []
            if let both = DigestMethod.fasterOnes.first(where: { faster.contains($0.name) }) {
                method = both
            } else {
                method = try DigestMethod(named: request.digest)
            }
            if method.isKeyed {
                key = try DigestKey(bytes(fromHexadecimal: request.key ?? "") ?? [])
            }
        } catch {
            var problem = Problem(
                .digest, status: 400, "The digest cannot be had", detail: error.reason)
            problem.object = request.digest
            problem.candidates = DigestMethod.available().map(\.name)
            throw problem
        }
        let opened = try Opened(found, request, boot: boot, view: exports.view)
        let layout = try opened.layout(for: request.block, digestSize: method.byteCount)
        var record = SessionRecord(
            session: id, device: exports.id(of: found, opened, claim.grant),
            size: opened.device.geometry.size, logicalSector: opened.facts.logicalSector,
            alignment: opened.alignment, layout: layout,
            content: ContentRecord(opened.facts.content), kind: opened.kind,
            rotational: opened.isRotational, warnings: opened.warnings)
        record.timeout = silence / .seconds(1)
        record.digest = method.name
        record.stamp = opened.device.contentStamp()?.marks
        record.host = boot.flatMap { boot in
            opened.facts.identity.flatMap { HostRecord($0, boot: boot) }
        }
        record.sizeBefore = opened.sizeBefore
        record.resizeTo = opened.resizeTo
        record.created = opened.wasCreated
        record.stampBefore = opened.stampBefore
        record.snapshot = (opened.device as? VolumeTarget)?.snapshot
        return Session(
            id: id, run: request.run, peer: claim.peer, grant: claim.grant, mode: request.mode,
            name: found.name,
            device: opened.device, layout: layout, method: method, key: key, record: record,
            relatives: opened.relatives, anchor: found.anchor, briefSilence: briefSilence)
    }

    /// Finds a session; the caller must `finish()` what it then does.
    ///
    /// - Throws: 404 where it has ended, or never was.
    func begin(_ id: String, _ grant: Grant) throws(Problem) -> Session {
        let session = state.withLock { $0.sessions[id] }
        // A token that was changed meanwhile has the sessions that it had under its name.
        if let session, session.grant.name == grant.name, session.begin() { return session }
        throw Problem(
            .noSession, status: 404, "There is no such session",
            detail: "the session has ended or never was")
    }

    /// All of what a session was for is written.
    ///
    /// - Returns: what the client should know, one line each.
    func finish(_ session: Session) -> [String] {
        let warnings = session.finishTarget()
        for warning in warnings {
            logger.warning("\(warning)", metadata: ["session": "\(session.id)"])
        }
        return warnings
    }

    /// Ends a session, once what it had in work is done.
    func end(_ session: Session, how: String) {
        guard session.end() else { return }
        release(session, how: how)
    }

    /// Ends a session if nothing of it is in work.
    func endIdle(_ session: Session, how: String) {
        guard session.end(afterSilence: .zero) else { return }
        release(session, how: how)
    }

    /// Whether a session goes on.
    func has(_ id: String) -> Bool { state.withLock { $0.sessions[id] != nil } }

    /// Ends sessions that nothing was heard of for too long.
    func endSilent() {
        for session in state.withLock({ Array($0.sessions.values) })
        where session.end(afterSilence: session.silence ?? silence) {
            flushAndRelease(session, how: "silent")
        }
    }

    /// Ends all sessions, and lets no new one begin.
    func close() {
        let sessions = state.withLock { state in
            state.isClosed = true
            return Array(state.sessions.values)
        }
        for session in sessions where session.end() {
            flushAndRelease(session, how: "server ended")
        }
    }

    private func flushAndRelease(_ session: Session, how: String) {
        session.leaveTarget()
        do throws(IOError) { try session.flush() } catch {
            logger.error("flush failed: \(error)", metadata: ["session": "\(session.id)"])
        }
        release(session, how: how)
    }

    private func release(_ session: Session, how: String) {
        state.withLock { state in
            state.sessions[session.id] = nil
            state.claims[session.id] = nil
        }
        var metadata = metadata(session)
        let counts = session.counts
        metadata["compared"] = "\(counts.compared)"
        metadata["read"] = "\(counts.read)"
        metadata["written"] = "\(counts.written)"
        metadata["zeroed"] = "\(counts.zeroed)"
        let elapsed = (ContinuousClock().now - session.start) / .milliseconds(1)
        metadata["seconds"] = "\((elapsed).rounded() / 1000)"
        metadata["end"] = "\(how)"
        logger.info("session ends", metadata: metadata)
    }

    private func metadata(_ session: Session) -> Logger.Metadata {
        var metadata: Logger.Metadata = [
            "session": "\(session.id.prefix(8))", "peer": "\(session.peer)",
            "device": "\(session.name)", "mode": "\(session.mode.rawValue)",
        ]
        if let name = session.grant.name { metadata["client"] = "\(name)" }
        return metadata
    }

    /// 128 random bits.
    private func newIdentifier() throws(Problem) -> String {
        do throws(DigestError) {
            return try DigestKey().withUnsafeBytes { hexadecimal($0.prefix(16)) }
        } catch {
            throw Problem(error)
        }
    }

    var count: Int { state.withLock { $0.sessions.count } }
}

/// What tells this boot of this machine from all others; `nil` where the kernel does not say.
func bootIdentifier() -> String? { readSmallFile("/proc/sys/kernel/random/boot_id") }
