// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import DeviceProbe
internal import Digests
internal import LinuxIO
internal import Logging
internal import WireProtocol
internal import Zstandard

/// The sessions of a server, which give a device to one target session or to any number of readers.
final class SessionTable: Sendable {
    struct Claim {
        var key: DeviceKey
        /// The name that the client has asked for, in its plain spelling.
        var asked: String
        var mode: SessionRequest.Mode
        var peer: Peer
        var run: String?
        var grant: Grant
        var generation: Int
    }
    struct State {
        var claims: [String: Claim] = [:]
        var sessions: [String: Session] = [:]
        var ended = EndedSessions()
        var isClosed = false
    }
    let state = Guarded(State())
    private let exports: ExportTable
    let rights: Rights
    private let limit: ClientLimit
    let silence: Duration
    let logger: Logger
    let events: BoundedLog
    private let boot: String?
    private let findsZstd: Bool
    /// Where the undo journals of writing sessions are; `nil` for none.
    private let undo: UndoDirectory?
    let history: WriteHistoryStore
    let promises = RoomPromises()
    let counts: ServerCounts

    /// - Parameters:
    ///   - limitOfClient: sessions of one address, and of one token or certificate.
    ///   - directory: of the file that outlives the server; `nil` for none.
    ///   - findsZstd: `false` as if libzstd were missing, for tests.
    ///   - undo: where the undo journals of writing sessions are; `nil` for none.
    ///   - counts: of the server.
    init(
        _ rights: Rights, limit: Int, limitOfClient: Int, silence: Duration, logger: Logger,
        events: BoundedLog, directory: String? = nil, findsZstd: Bool = true,
        undo: UndoDirectory? = nil, counts: ServerCounts = ServerCounts()
    ) {
        exports = rights.exports
        self.rights = rights
        self.limit = ClientLimit(total: limit, ofClient: limitOfClient)
        self.silence = silence
        self.logger = logger
        self.events = events
        self.findsZstd = findsZstd
        self.undo = undo
        self.counts = counts
        boot = bootIdentifier()
        history = WriteHistoryStore(directory: directory, boot: boot)
    }

    /// Whether sessions may pack their payloads; libzstd is loaded at the first question.
    var compresses: Bool { findsZstd && Zstd.fault == nil }

    /// Opens a device for a client, or returns the session that the same run has opened before.
    ///
    /// - Parameters:
    ///   - briefSilence: timeout until the session has written; `nil` for the normal timeout.
    ///   - reasonToGiveUp: asked before a target is opened, while it is locked, and before it grows.
    /// - Throws: 400, 403, 404, 409, 423, 429, 503 and the errors of the device.
    func open(
        _ device: String, _ request: SessionRequest, peer: Peer, _ grant: Grant,
        canCreate: Bool = true, briefSilence: Duration? = nil,
        unless reasonToGiveUp: @escaping @Sendable () -> Problem? = { nil }
    ) throws(Problem) -> Session {
        var isOpen = false
        defer { if !isOpen { counts.failedSessions.count(1) } }
        do throws(WireError) { try request.check() } catch { throw Problem(error) }
        let isTarget = request.mode != .read
        let generation = rights.generation(of: grant, peer)
        let asked = plainSpelling(of: device)
        waitForFirstAttempt(of: request, on: asked, grant)
        let found = try exports.find(device, canCreate: isTarget && canCreate, for: grant)
        // A dry run gets the same answer as the real run.
        if isTarget && found.access == .readOnly {
            let isTokens = grant.access == .readOnly
            throw Problem(
                .access, status: 403, "The export is read-only",
                detail: isTokens
                    ? "the token allows only reading" : "the server exports it read-only",
                object: found.name,
                advice: isTokens ? nil : "The server's --export SELECTOR:rw allows writing.")
        }
        try found.checkCreation(request)
        if isTarget {
            try grant.checkAppending(request, found) { () throws(Problem) in
                try exports.isSnapshot(found)
            }
        }
        let key = DeviceKey(found)
        if let known = sessionOf(run: request.run, key, request.mode, grant) {
            isOpen = true
            return known
        }
        let id = try newIdentifier()
        let claim = Claim(
            key: key, asked: asked, mode: request.mode, peer: peer, run: request.run, grant: grant,
            generation: generation)
        try take(claim, as: id, found)
        do throws(Problem) {
            let counter = try self.counter(of: request, claim, found)
            let brief = briefSilence.map { min($0, silence) }
            // Two clients that fill one directory must each see what the other creates.
            let session =
                try !isTarget
                ? open(
                    id, found, request, claim, since: counter, briefSilence: brief,
                    unless: reasonToGiveUp)
                : promises.promising(
                    request.source?.size ?? 0, to: found, grant, in: exports,
                    isCounted: request.mode == .write
                ) { () throws(Problem) in
                    try open(
                        id, found, request, claim, since: counter, briefSilence: brief,
                        unless: reasonToGiveUp)
                }
            isOpen = state.withLock { state in
                guard !state.isClosed else { return false }
                state.sessions[id] = session
                // A target that was created has an identity now.
                if let key = DeviceKey(session.record.host) { state.claims[id]?.key = key }
                return true
            }
            guard isOpen else { throw Self.closing }
            if request.mode == .write, let key = state.withLock({ $0.claims[id]?.key }) {
                // A killed server cannot record later what the session has written.
                history.add(
                    WriteHistory.Entry(
                        run: request.run, client: grant.name, hasWritten: true, isOpen: true),
                    of: key)
            }
            note("session begins", of: session, metadata(session))
            return session
        } catch {
            state.withLock { $0.claims[id] = nil }
            throw error
        }
    }

    static let closing = Problem(
        .busy, status: 503, "The server is ending", detail: "the server is ending")

    private static let changing = Problem(
        .busy, status: 503, "The rights have changed",
        detail: "tokens or exports have changed while the request waited")

    /// The change counter at the end of the run's last session; `nil` if it is not known.
    ///
    /// - Throws: if it is another device now, if another client or program has written to it, or if
    ///   the run's last flush failed.
    private func counter(
        of request: SessionRequest, _ claim: Claim, _ found: ExportTable.Found
    ) throws(Problem) -> [Int]? {
        guard request.mode == .write, let before = request.continues else { return nil }
        // A new image may have the inode number of the removed one.
        let isReborn = before.host?.born.map { born in
            (try? FileStatus(path: found.path))?.born.map { $0 != born } ?? false
        }
        if let host = before.host,
            DeviceKey(host) != claim.key || host.boot != boot || isReborn == true
        {
            throw Problem(
                .changed(found.name, "it is another device than before the session ended"))
        }
        switch history.answer(to: request.run, of: claim.grant.name, for: claim.key) {
        case .since(let counter): return counter
        case .changed(let reason): throw Problem(.changed(found.name, reason))
        case .lost(let reason):
            // Not a refusal: the client must not try another path to the device.
            throw Problem(
                IOError(
                    found.name, "flush",
                    reason:
                        "\(reason): what was written before the session ended may be lost",
                    advice: "Run it again with --whole-file."))
        }
    }

    /// Waits while an earlier session of the same run on the same device is being opened or
    /// released.
    ///
    /// The client chooses the run. If it chooses the same one for several devices, a device that
    /// hangs must not take the threads of requests for others. Requests for one device have only
    /// that device's share of the threads.
    ///
    /// - Parameter asked: the plain spelling of the name or identifier that the client asks for.
    private func waitForFirstAttempt(
        of request: SessionRequest, on asked: String, _ grant: Grant
    ) {
        guard let run = request.run else { return }
        state.wait { state in
            !state.claims.contains { id, claim in
                claim.run == run && claim.grant.name == grant.name
                    && claim.mode == request.mode
                    && Self.isDevice(asked, of: claim, state.sessions[id])
                    && state.sessions[id]?.isEnded ?? true
            }
        }
    }

    /// Whether a client asks for the device of a claim, by the same name as before or by the
    /// identifier that the session's record has.
    private static func isDevice(_ asked: String, of claim: Claim, _ session: Session?) -> Bool {
        asked.isSame(as: claim.asked)
            || session.map { plainSpelling(of: $0.record.device).isSame(as: asked) } ?? false
    }

    private func take(
        _ claim: Claim, as id: String, _ found: ExportTable.Found
    ) throws(Problem) {
        try state.withLock { state throws(Problem) in
            if state.isClosed { throw Self.closing }
            let other = state.claims.values.first {
                $0.key == claim.key && ($0.isExclusive || claim.isExclusive)
            }
            if let other { throw inUse(found, by: other) }
            try limit.check(
                state.claims.count, ofClient: countOfClient(claim, state), "sessions",
                client: "have \(limit.ofClient) sessions", server: "\(limit.total) sessions")
            state.claims[id] = claim
        }
    }

    private func inUse(_ found: ExportTable.Found, by other: Claim) -> Problem {
        Problem(
            .locked, status: 423, "The device is in use by another session",
            detail: "a client at \(other.peer.name) is \(other.use)", object: found.name,
            advice: "Wait until that is done; a client that died is forgotten after "
                + "\(Int(silence / .seconds(1))) s.",
            cause: .locked)
    }

    /// The sessions of a client's address, or of its token or certificate if these are more.
    private func countOfClient(_ claim: Claim, _ state: borrowing State) -> Int {
        var (ofAddress, ofName) = (0, 0)
        for other in state.claims.values {
            if let network = other.peer.network, network == claim.peer.network { ofAddress += 1 }
            if other.grant.name != nil && other.grant.name == claim.grant.name { ofName += 1 }
        }
        return max(ofAddress, ofName)
    }

    private func open(
        _ id: String, _ found: ExportTable.Found, _ request: SessionRequest, _ claim: Claim,
        since counter: [Int]?, briefSilence: Duration?,
        unless reasonToGiveUp: @escaping @Sendable () -> Problem?
    ) throws(Problem) -> Session {
        // Before anything is created or resized: the retry is judged by the present rights.
        guard claim.generation == rights.generation else { throw Self.changing }
        // The request may have waited for an earlier one.
        if request.mode != .read, let reason = reasonToGiveUp() { throw reason }
        let method: DigestMethod
        var key: DigestKey?
        do throws(IOError) {
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
            throw Problem(
                .digest, status: 400, "The digest is not available", detail: error.reason,
                object: request.digest, candidates: DigestMethod.available().map(\.name))
        }
        let opened = try SessionDevice(
            found, request, since: counter, boot: boot, view: exports.view, undo: undo,
            unless: reasonToGiveUp)
        if request.mode != .read {
            try claim.grant.checkSize(
                opened.resizeTo, now: opened.sizeBefore ?? opened.device.geometry.size, found.name)
        }
        let layout = try opened.layout(for: request.block)
        var record = SessionRecord(
            session: id, device: exports.id(of: found, opened, claim.grant),
            size: opened.device.geometry.size, logicalSector: opened.facts.logicalSector,
            alignment: opened.alignment, layout: layout,
            content: ContentRecord(opened.facts.content), kind: opened.kind,
            rotational: opened.isRotational, warnings: opened.warnings)
        record.timeout = silence / .seconds(1)
        record.digest = method.name
        if let level = request.zstd, compresses {
            record.zstd = min(level, Zstd.highestServedLevel)
        }
        record.stamp = opened.device.changeCounter()?.marks
        if request.mode != .write {
            let counter = opened.counterForReaders
            (record.lastingStamp, record.lastingSince) = (counter?.marks, counter?.since)
        }
        record.host = boot.flatMap { boot in
            opened.facts.identity.flatMap {
                HostRecord($0, boot: boot, born: opened.device.fileStatus?.born)
            }
        }
        record.sizeBefore = opened.sizeBefore
        record.resizeTo = opened.resizeTo
        record.created = opened.wasCreated
        record.replica = opened.isReplica
        record.stampBefore = opened.counterBefore?.marks
        record.stampBeforeSince = opened.counterBefore?.since
        record.unchanged = opened.isUnchanged ? true : nil
        record.snapshot = opened.device.snapshot
        let cuts = opened.resizeTo.map { $0 < opened.sizeBefore ?? record.size } ?? false
        return Session(
            id: id, mode: request.mode,
            Permission(
                claim.grant, claim.peer, found, request: request, cuts: cuts,
                judged: claim.generation),
            device: opened.device, layout: layout, method: method, key: key, record: record,
            relatives: opened.relatives, leftovers: opened.leftovers, briefSilence: briefSilence,
            journal: opened.journal)
    }

    /// 128 random bits, in hexadecimal.
    private func newIdentifier() throws(Problem) -> String {
        do throws(IOError) {
            return try DigestKey().withUnsafeBytes { hexadecimal($0.prefix(16)) }
        } catch {
            throw Problem(error)
        }
    }

    var count: Int { state.withLock { $0.sessions.count } }

    var all: [Session] { state.withLock { Array($0.sessions.values) } }
}
