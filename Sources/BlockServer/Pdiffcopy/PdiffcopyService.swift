// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import LinuxIO
internal import NIOCore
internal import NIOHTTP1
internal import WireProtocol

/// Answers requests of pdiffcopy, whose protocol has no sessions.
///
/// A client's first request for an export opens a session, later ones join it, a timeout ends it.
final class PdiffcopyService: RouteFamily {
    /// At the end of a file name: the client accepts the loss of the target's content.
    static let overwriteSuffix = ":overwrite"

    /// Timeout of a session that has written nothing: the protocol has no closing request.
    static let briefSilence = Duration.seconds(5)

    /// The identity of a client whose connections last for one request.
    struct Client: Hashable {
        var name: String?
        var address: String
    }
    struct Key: Hashable {
        var client: Client
        /// Bytes of the name, as the kernel compares them.
        var filename: [UInt8]
    }
    struct Entry {
        var reading: String?
        var writing: String?
        var order = PdiffcopyOrder()
        var used = ContinuousClock.now
    }
    struct State {
        var entries: [Key: Entry] = [:]
        /// Clients, each with the subject of the file name that it opens.
        var opening: Set<Key> = []
    }
    let state = Guarded(State())
    /// Names remembered at once: of all clients, and of one client.
    private static let limit = 1024
    static let limitOfClient = 128
    let exports: ExportTable
    let sessions: SessionTable
    private let contents: ContentCache
    /// No other client can choose the same run for a session.
    let secret = "\(UInt64.random(in: 0 ... .max)) \(UInt64.random(in: 0 ... .max))"

    init(_ exports: ExportTable, _ sessions: SessionTable, _ contents: ContentCache) {
        self.exports = exports
        self.sessions = sessions
        self.contents = contents
    }

    func route(_ target: String) -> (any ServedRoute)? {
        PdiffcopyCall(target).map { PdiffcopyRoute(call: $0, service: self) }
    }

    struct Question {
        var filename: String
        var key: Key
        var request: Request
        /// Whether pdiffcopy's own client sent the request, whose order of requests is known.
        var isFromClient: Bool
    }

    /// Answers a request; see docs/protocol.md, "pdiffcopy's protocol".
    func answer(
        _ call: PdiffcopyCall, _ request: Request, _ memory: UnsafeMutableRawBufferPointer
    ) throws(Problem) -> Response {
        if request.method == .POST { contents.forgetAll() }
        let filename = try parsed { () throws(WireError) in try call.filename() }
        let agent = request.headers.first(name: "User-Agent") ?? ""
        let question = Question(
            filename: filename, key: key(filename, request), request: request,
            isFromClient: agent.hasPrefix("python-requests/"))
        switch call.endpoint {
        case .info: return try info(question)
        case .hashes: return try hashes(question, call)
        case .blocks where request.method == .POST: return try write(question, call, memory)
        case .blocks: return try read(question, call, memory)
        case .resize: return try resize(question, call)
        }
    }

    func key(_ filename: String, _ request: Request) -> Key {
        let client = Client(name: request.grant.name, address: request.peer.address)
        return Key(client: client, filename: Array(filename.utf8))
    }

    /// What all spellings of a file name have in common, with and without that suffix.
    static func subject(of filename: String) -> String {
        let name = RemoteLocation.selector(inPath: filename).unicodeScalars
        let suffix = overwriteSuffix.unicodeScalars
        let permitsLoss = name.suffix(suffix.count).elementsEqual(suffix)
        return plainSpelling(
            of: String(String.UnicodeScalarView(name.dropLast(permitsLoss ? suffix.count : 0))))
    }

    func parsed<Value>(_ read: () throws(WireError) -> Value) throws(Problem) -> Value {
        do throws(WireError) { return try read() } catch { throw Problem(error) }
    }

    func forgetOld() {
        state.withLock { state in
            state.entries = state.entries.filter {
                isOfUse($0.value) || !$0.value.order.isExpired()
            }
        }
    }

    private func isOfUse(_ entry: Entry) -> Bool {
        [entry.reading, entry.writing].contains { $0.map(sessions.has) ?? false }
    }

    func change<Value>(_ key: Key, _ body: (inout Entry) -> Value) -> Value {
        state.withLock { state in
            if state.entries[key] == nil { makeRoom(&state.entries, for: key.client) }
            state.entries[key, default: Entry()].used = .now
            return body(&state.entries[key, default: Entry()])
        }
    }

    /// Drops the client's least recently used name; names of others only if all clients have too
    /// many.
    private func makeRoom(_ entries: inout [Key: Entry], for client: Client) {
        guard entries.count >= Self.limitOfClient else { return }
        func drop(over limit: Int, _ isIncluded: (Client) -> Bool) {
            let known = entries.filter { isIncluded($0.key.client) }
            guard known.count >= limit else { return }
            let oldest = known.min { $0.value.used < $1.value.used }
            if let oldest { entries[oldest.key] = nil }
        }
        drop(over: Self.limitOfClient) { $0 == client }
        drop(over: Self.limit) { _ in true }
    }

    var nameCount: Int { state.withLock { $0.entries.count } }

    /// Forgets the last request, so that it does not affect the next one.
    func forgetOrder(_ key: Key) {
        state.withLock { $0.entries[key]?.order = PdiffcopyOrder() }
    }
}
