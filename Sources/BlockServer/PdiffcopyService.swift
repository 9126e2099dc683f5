// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import DeviceProbe
internal import Glibc
internal import NIOCore
internal import NIOHTTP1
internal import Synchronization
internal import WireProtocol

/// What the server does with requests of pdiffcopy, which knows no sessions: the first request of a
/// client for an export begins one, the next ones join it, and silence ends it.
final class PdiffcopyService: Sendable {
    /// At the end of a file name: what is on the target may be lost.
    static let overwriteMark = ":overwrite"

    /// After which a session is released that has written nothing: nobody says that he is done.
    private static let briefSilence = Duration.seconds(5)

    /// Who asks: all that can be told of a client whose connections live for one request.
    private struct Client: Hashable {
        var name: String?
        var address: String
    }
    private struct Key: Hashable {
        var client: Client
        /// Bytes, as the kernel compares them.
        var filename: [UInt8]
    }
    private struct Entry {
        var reading: String?
        var writing: String?
        var order = PdiffcopyOrder()
    }
    private struct State {
        var entries: [Key: Entry] = [:]
        /// Clients that are opening a session.
        var opening: Set<Client> = []
    }
    private let state = Mutex(State())
    private static let limit = 1024
    private let exports: ExportTable
    private let sessions: SessionTable
    /// Nobody else can draw the same run for a session.
    private let secret = "\(UInt64.random(in: 0 ... .max)) \(UInt64.random(in: 0 ... .max))"

    init(exports: ExportTable, sessions: SessionTable) {
        self.exports = exports
        self.sessions = sessions
    }

    /// One request, and who asks.
    private struct Question {
        var filename: String
        var key: Key
        var request: Request
        /// Asked by pdiffcopy's own client, whose order of requests is known.
        var isFromClient: Bool
    }

    /// Does what a request asks for; see docs/protocol.md, "pdiffcopy's protocol".
    func answer(
        _ call: PdiffcopyCall, _ request: Request, _ memory: UnsafeMutableRawBufferPointer
    ) throws(Problem) -> Response {
        let filename = try parsed { () throws(WireError) in try call.filename() }
        let client = Client(name: request.grant.name, address: request.address)
        let agent = request.headers.first(name: "User-Agent") ?? ""
        let question = Question(
            filename: filename, key: Key(client: client, filename: Array(filename.utf8)),
            request: request, isFromClient: agent.hasPrefix("python-requests/"))
        switch call.endpoint {
        case .info: return try info(question)
        case .hashes: return try hashes(question, call)
        case .blocks where request.method == .POST: return try write(question, call, memory)
        case .blocks: return try read(question, call, memory)
        case .resize: return try resize(question, call)
        }
    }

    private func parsed<Value>(_ read: () throws(WireError) -> Value) throws(Problem) -> Value {
        do throws(WireError) { return try read() } catch { throw Problem(error) }
    }

    /// Forgets what was of sessions that have ended.
    func forgetOld() {
        state.withLock { state in
            state.entries = state.entries.filter { isOfUse($0.value) || !$0.value.order.isOver() }
        }
    }

    private func isOfUse(_ entry: Entry) -> Bool {
        [entry.reading, entry.writing].contains { $0.map(sessions.has) ?? false }
    }

    private func change<Value>(_ key: Key, _ body: (inout Entry) -> Value) -> Value {
        state.withLock { state in
            if state.entries.count >= Self.limit && state.entries[key] == nil {
                state.entries = state.entries.filter { isOfUse($0.value) }
            }
            return body(&state.entries[key, default: Entry()])
        }
    }
}

/// The endpoints.
extension PdiffcopyService {
    private func info(_ question: Question) throws(Problem) -> Response {
        let named = try resolve(question.filename, question.request.grant)
        guard let found = named.found else { throw ExportTable.notFound(question.filename) }
        if question.isFromClient && question.request.method == .GET {
            change(question.key) { $0.order.infoAsked() }
        }
        return Self.answer("application/json", "{\"size\":\(found.size)}\n")
    }

    private func hashes(_ question: Question, _ call: PdiffcopyCall) throws(Problem) -> Response {
        let (block, name) = try parsed { () throws(WireError) in
            let block = try call.number(
                "block_size", in: 1...PdiffcopyCall.maximumBlock,
                default: PdiffcopyCall.defaultBlock)
            guard let name = try call.text("method") else {
                throw WireError("method is missing")
            }
            return (block, name)
        }
        let method = try HashSource.method(named: name)
        // Of a client that goes on to write the refusal must come now: its workers, which write,
        // do not tell anybody when that is refused.
        let isTarget = question.isFromClient && change(question.key) { $0.order.isPush() }
        let use = isTarget ? try writing(question, size: nil) : try reading(question)
        var response = Self.answer("text/plain; charset=utf-8", "")
        // An empty image has no blocks.
        guard let use else { return response }
        if question.isFromClient && !isTarget { change(question.key) { $0.order.hashesAsked() } }
        response.body = .stream(HashSource(use, block: block, method: method))
        return response
    }

    private func read(
        _ question: Question, _ call: PdiffcopyCall, _ memory: UnsafeMutableRawBufferPointer
    ) throws(Problem) -> Response {
        let (offset, size) = try parsed { () throws(WireError) in
            (try call.number("offset", in: 0...Int.max), try call.number("size", in: 0...Int.max))
        }
        change(question.key) { $0.order = PdiffcopyOrder() }
        var response = Self.answer(MediaType.bytes, "")
        guard let use = try reading(question) else { return response }
        let device = use.session.device
        let start = min(offset, device.geometry.size)
        let range = ByteRange(offset: start, length: min(size, device.geometry.size - start))
        guard !range.isEmpty else { return response }
        use.session.count { $0.read += range.length }
        let source = ContentSource(device, range, owner: use, isChunked: true)
        // Whole where it can be, so that an error is a status.
        response.body =
            range.length <= ContentSource.step ? .bytes(try source.next(memory)) : .stream(source)
        return response
    }

    private func write(
        _ question: Question, _ call: PdiffcopyCall, _ memory: UnsafeMutableRawBufferPointer
    ) throws(Problem) -> Response {
        let offset = try parsed { () throws(WireError) in
            try call.number("offset", in: 0...Int.max)
        }
        change(question.key) { $0.order = PdiffcopyOrder() }
        let bytes = question.request.bytes
        guard let use = try writing(question, size: nil) else {
            throw Session.beyondEnd(question.filename, offset, bytes.count, size: 0)
        }
        try use.session.writeThrough(bytes, at: offset, memory)
        return Self.answer("text/html; charset=utf-8", "")
    }

    private func resize(_ question: Question, _ call: PdiffcopyCall) throws(Problem) -> Response {
        let size = try parsed { () throws(WireError) in
            try call.number("size", in: 0...Geometry.maximumSize)
        }
        change(question.key) { $0.order = PdiffcopyOrder() }
        guard size > 0 else {
            throw Session.refusal(
                question.filename, .size, "a target of 0 bytes is a replica of nothing")
        }
        try writing(question, size: size)?.session.resize(to: size)
        return Self.answer("text/html; charset=utf-8", "")
    }

    private static func answer(_ type: String, _ text: String) -> Response {
        var response = Response(.ok)
        response.headers.add(name: "Content-Type", value: type)
        response.body = .bytes(.init(string: text))
        return response
    }
}

/// Names and sessions.
extension PdiffcopyService {
    private struct Named {
        var name: String
        /// Whether what is on it may be lost.
        var overwrite = false
        /// `nil` for what is not there.
        var found: ExportTable.Found?
    }

    /// What a file name means; an export of exactly that name comes first.
    private func resolve(_ filename: String, _ grant: Grant) throws(Problem) -> Named {
        let name = RemoteLocation.selector(inPath: filename)
        let mark = Self.overwriteMark.unicodeScalars
        let found = try find(name, grant)
        // By scalars: a combining mark would be one character with the colon.
        guard found == nil, name.unicodeScalars.suffix(mark.count).elementsEqual(mark) else {
            return Named(name: name, found: found)
        }
        let bare = String(String.UnicodeScalarView(name.unicodeScalars.dropLast(mark.count)))
        return Named(name: bare, overwrite: true, found: try find(bare, grant))
    }

    private func find(_ name: String, _ grant: Grant) throws(Problem) -> ExportTable.Found? {
        do throws(Problem) { return try exports.find(name, for: grant) } catch {
            guard error.kind == .notFound else { throw error }
            return nil
        }
    }

    /// The session to read by: of a client that writes, the one that it writes by.
    ///
    /// - Returns: `nil` for an empty image, which there are no sessions for.
    /// - Throws: why it may not be read.
    private func reading(_ question: Question) throws(Problem) -> SessionUse? {
        let grant = question.request.grant
        if let use = use(question.key, grant) { return use }
        return try opening(question.key) { () throws(Problem) in
            if let use = use(question.key, grant) { return use }
            let named = try resolve(question.filename, grant)
            guard let found = named.found else { throw ExportTable.notFound(question.filename) }
            let writing = sessions.known(run(question.key, .write), found, .write, grant)
            if let writing {
                return try remember(writing, question)
            }
            if found.isEmptyImage { return nil }
            let session = try sessions.open(
                named.name, ask(.read, question.key), peer: question.request.peer, grant,
                briefSilence: Self.briefSilence)
            return try remember(session, question)
        }
    }

    /// The session to write by; reading by another ends.
    ///
    /// - Parameters:
    ///   - question: what is asked.
    ///   - size: that the target is to have; `nil` for the one that it has.
    /// - Returns: `nil` for an empty image that is to stay one.
    /// - Throws: why it may not be written to.
    private func writing(_ question: Question, size: Int?) throws(Problem) -> SessionUse? {
        let grant = question.request.grant
        if let use = use(question.key, grant, forWriting: true) { return use }
        return try opening(question.key) { () throws(Problem) in
            if let use = use(question.key, grant, forWriting: true) { return use }
            let named = try resolve(question.filename, grant)
            if let found = named.found {
                if found.isEmptyImage && size == nil { return nil }
                let reading = sessions.known(run(question.key, .read), found, .read, grant)
                if let reading { sessions.endIdle(reading, how: "abandoned") }
            } else if size == nil {
                throw ExportTable.notFound(question.filename)
            }
            var asked = ask(.write, question.key)
            asked.overwrite = named.overwrite
            asked.source = SourceRecord(
                SourceFacts(
                    name: "the client's file", size: size ?? named.found?.size ?? 0,
                    content: .empty, logicalSector: nil, identity: nil), boot: nil)
            let session = try sessions.open(
                named.name, asked, peer: question.request.peer, grant, canCreate: size != nil,
                briefSilence: Self.briefSilence)
            return try remember(session, question)
        }
    }

    /// Lets a client open one session at a time: of several first requests at once all but one join
    /// what the first has opened.
    private func opening(
        _ key: Key, _ body: () throws(Problem) -> SessionUse?
    ) throws(Problem) -> SessionUse? {
        while !state.withLock({ $0.opening.insert(key.client).inserted }) { usleep(1000) }
        defer { state.withLock { _ = $0.opening.remove(key.client) } }
        return try body()
    }

    /// Of a session that is known and goes on.
    private func use(_ key: Key, _ grant: Grant, forWriting: Bool = false) -> SessionUse? {
        let entry = state.withLock { $0.entries[key] }
        let ids = [entry?.writing, forWriting ? nil : entry?.reading]
        for case .some(let id) in ids {
            if let session = try? sessions.begin(id, grant) { return SessionUse(begun: session) }
        }
        return nil
    }

    private func remember(_ session: Session, _ question: Question) throws(Problem) -> SessionUse {
        let begun = try sessions.begin(session.id, question.request.grant)
        change(question.key) { entry in
            if session.mode == .write {
                entry.writing = session.id
            } else {
                entry.reading = session.id
            }
        }
        return SessionUse(begun: begun)
    }

    private func ask(_ mode: SessionRequest.Mode, _ key: Key) -> SessionRequest {
        // Frames are not for pdiffcopy: its digests come from `HashSource`.
        var asked = SessionRequest(mode: mode, block: 4096, digest: "sha256", key: nil)
        asked.run = run(key, mode)
        return asked
    }

    private func run(_ key: Key, _ mode: SessionRequest.Mode) -> String {
        "pdiffcopy \(secret) \(key.client.address) \(mode.rawValue)"
    }
}

extension ExportTable.Found {
    /// Bytes of it that can be read and written; 0 for what is not there.
    fileprivate var size: Int {
        guard let description else { return 0 }
        let (size, sector) = (description.entry.size, description.entry.logicalSector)
        return description.isImage ? size : size / sector * sector
    }

    fileprivate var isEmptyImage: Bool { description?.isImage == true && size == 0 }
}

/// What pdiffcopy's client has asked before, which tells whether it is about to read or to write.
///
/// One that writes asks for the target's size and then for its digests; one that reads for the
/// source's digests and then, where something differs, for its size.
struct PdiffcopyOrder: Sendable {
    private enum Last {
        case info(ContinuousClock.Instant)
        case hashes(ContinuousClock.Instant)
    }
    private var last: Last?

    /// Between the two requests of one who writes there is no work.
    private static let pushTime = Duration.seconds(5)
    /// Between those of one who reads it computes digests of its own.
    private static let pullTime = Duration.seconds(600)

    mutating func infoAsked() {
        if case .hashes(let time) = last, .now - time < Self.pullTime {
            last = nil
        } else {
            last = .info(.now)
        }
    }

    mutating func hashesAsked() { last = .hashes(.now) }

    /// Whether who asks for digests now is about to write; asked once.
    mutating func isPush() -> Bool {
        guard case .info(let time) = last else { return false }
        last = nil
        return .now - time < Self.pushTime
    }

    func isOver() -> Bool {
        switch last {
        case .info(let time): .now - time >= Self.pushTime
        case .hashes(let time): .now - time >= Self.pullTime
        case nil: true
        }
    }
}
