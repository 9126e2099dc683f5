// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import DeviceProbe
internal import LinuxIO
internal import NIOHTTP1
internal import WireProtocol

extension PdiffcopyService {
    struct Named {
        var name: String
        /// Whether the client accepts the loss of the target's content.
        var overwrite = false
        var found: ExportTable.Found?
    }

    /// Finds the export that a file name means; an export of exactly that name comes first.
    func resolve(_ filename: String, _ grant: Grant) throws(Problem) -> Named {
        let name = RemoteLocation.selector(inPath: filename)
        let suffix = Self.overwriteSuffix.unicodeScalars
        let found = try find(name, grant)
        // Compares scalars: as characters, a combining mark would join the colon.
        guard found == nil, name.unicodeScalars.suffix(suffix.count).elementsEqual(suffix) else {
            return Named(name: name, found: found)
        }
        let bare = String(String.UnicodeScalarView(name.unicodeScalars.dropLast(suffix.count)))
        return Named(name: bare, overwrite: true, found: try find(bare, grant))
    }

    private func find(_ name: String, _ grant: Grant) throws(Problem) -> ExportTable.Found? {
        do throws(Problem) { return try exports.find(name, for: grant) } catch {
            guard error.kind == .notFound else { throw error }
            return nil
        }
    }

    /// Whether a client may transfer a block; the server asks before it takes memory for the body.
    func mayTransfer(_ call: PdiffcopyCall, _ request: Request) -> Bool {
        guard let filename = try? call.filename() else { return false }
        let key = self.key(filename, request)
        let isWrite = request.method == .POST
        if use(key, request.grant, forWriting: isWrite) != nil { return true }
        guard let found = try? resolve(filename, request.grant).found else { return false }
        return !isWrite || found.access == .readWrite
    }

    /// The session to read by, which may be the client's writing session; `nil` for an empty image.
    func reading(_ question: Question) throws(Problem) -> SessionUse? {
        let grant = question.request.grant
        if let use = use(question.key, grant) { return use }
        return try opening(question.filename, question.key.client) { () throws(Problem) in
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

    /// The session to write by; `nil` for an empty image that stays empty.
    ///
    /// Ends the client's idle reading session.
    ///
    /// - Parameter size: the size that the target must have, in bytes; `nil` for its present size.
    func writing(_ question: Question, size: Int?) throws(Problem) -> SessionUse? {
        let grant = question.request.grant
        if let use = use(question.key, grant, forWriting: true) { return use }
        return try opening(question.filename, question.key.client) { () throws(Problem) in
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
                briefSilence: Self.briefSilence, unless: question.request.reasonToGiveUp)
            return try remember(session, question)
        }
    }

    /// Lets a client open one session of a device at a time; its simultaneous first requests join
    /// that session.
    ///
    /// A device that hangs delays only requests for it. They have only its share of the threads.
    func opening(
        _ filename: String, _ client: Client, _ body: () throws(Problem) -> SessionUse?
    ) throws(Problem) -> SessionUse? {
        let subject = Self.subject(of: filename)
        let key = Key(client: client, filename: Array(subject.utf8))
        state.wait { $0.opening.insert(key).inserted }
        defer { state.withLock { _ = $0.opening.remove(key) } }
        return try body()
    }

    /// The client's session, if it is remembered and still open.
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
        // pdiffcopy uses no frames: its digests come from `HashSource`.
        var asked = SessionRequest(mode: mode, block: 4096, digest: "sha256", key: nil)
        asked.run = run(key, mode)
        return asked
    }

    private func run(_ key: Key, _ mode: SessionRequest.Mode) -> String {
        "pdiffcopy \(secret) \(key.client.address) \(mode.rawValue)"
    }
}

extension ExportTable.Found {
    /// Bytes that can be read and written; 0 for an image that does not exist yet.
    var size: Int {
        guard let description else { return 0 }
        let (size, sector) = (description.entry.size, description.entry.logicalSector)
        return description.isImage ? size : size / sector * sector
    }

    fileprivate var isEmptyImage: Bool { description?.isImage == true && size == 0 }
}
