// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import Digests
internal import NIOCore
internal import NIOHTTP1
internal import WireProtocol

/// Answers requests of blkferry's own protocol; see docs/protocol.md.
final class BlkferryService: RouteFamily {
    private let exports: ExportTable
    let sessions: SessionTable
    private let contents: ContentCache
    private let version: String

    init(
        _ exports: ExportTable, _ sessions: SessionTable, _ contents: ContentCache, version: String
    ) {
        self.exports = exports
        self.sessions = sessions
        self.contents = contents
        self.version = version
    }

    func route(_ target: String) -> (any ServedRoute)? {
        Route(target).map { BlkferryRoute(route: $0, service: self) }
    }

    func forgetOld() { contents.forgetOld() }

    /// - Parameter memory: of the thread, at least `Limits.payload`.
    func answer(
        _ route: Route, _ request: Request, _ memory: UnsafeMutableRawBufferPointer
    ) throws(Problem) -> Response {
        switch route {
        case .info:
            return Response(
                .ok,
                json: ServerRecord(
                    version: version,
                    features: ["sessions", "content", SessionRequest.volumes]
                        + (sessions.compresses ? [SessionRequest.compression] : []),
                    digests: DigestMethod.available().map(\.name)))
        case .devices:
            return Response(.ok, json: try exports.list(for: request.grant))
        case .device(let name):
            guard let record = try exports.find(name, for: request.grant).record else {
                preconditionFailure("found without a description")
            }
            return Response(.ok, json: record)
        case .content(let name):
            return try content(of: name, request)
        case .sessions(let device):
            let asked = try json(SessionRequest.self, request)
            if asked.mode != .read { contents.forgetAll() }
            let session = try sessions.open(
                device, asked, peer: request.peer, request.grant, unless: request.reasonToGiveUp)
            return Response(.created, json: session.record)
        case .session(let id) where request.method == .DELETE:
            return try within(id, request) { session throws(Problem) in
                // A write that its client has given up may still be in work.
                session.waitForOthers()
                try session.commit(size: nil, isComplete: false)
                sessions.end(session, how: "abandoned")
                return Response(.noContent)
            }
        case .session(let id):
            return try within(id, request) { session throws(Problem) in
                Response(.ok, json: try status(of: session))
            }
        case .compare(let id):
            return try within(id, request) { session throws(Problem) in
                Response(.ok, frames: try session.compare(request.bytes, memory))
            }
        case .read(let id):
            return try within(id, request) { session throws(Problem) in
                Response(.ok, frames: try session.read(request.bytes))
            }
        case .write(let id):
            return try within(id, request) { session throws(Problem) in
                try session.write(request.bytes, memory)
                return Response(.noContent)
            }
        case .commit(let id):
            let asked = try json(CommitRequest.self, request)
            return try within(id, request) { session throws(Problem) in
                session.waitForOthers()
                try session.commit(size: asked.size, isComplete: asked.release)
                guard asked.release else {
                    // A client that gets no record asks for it, and then gets the problem.
                    guard asked.status == true, let record = try? status(of: session) else {
                        return Response(.noContent)
                    }
                    return Response(.ok, json: CommitRecord(warnings: [], status: record))
                }
                let warnings = sessions.finish(session)
                sessions.end(session, how: SessionTable.committed)
                let undo = session.undo
                return warnings.isEmpty && undo == nil
                    ? Response(.noContent)
                    : Response(.ok, json: CommitRecord(warnings: warnings, undo: undo))
            }
        }
    }

    private func status(of session: Session) throws(Problem) -> SessionRecord {
        var record = session.record
        record.size = session.device.geometry.size
        record.undo = session.undo
        // Reading this counter writes back the pages of an image, and a source must not be written.
        let counter = session.mode == .write ? session.device.persistentChangeCounter() : nil
        (record.lastingStamp, record.lastingSince) = (counter?.marks, counter?.since)
        record.writtenByOthers = session.hasForeignWrites ? true : nil
        record.openedByOthers = session.hadOtherWriters ? true : nil
        // Asked after the persistent counter was read, which may include a write of the last moment.
        if session.mode == .write { record.onlyOwnWriters = session.hadOnlyOwnWriters ? true : nil }
        // Read last: an equal counter shows that these writers wrote nothing in between.
        record.stamp = session.changeCounter()
        try session.checkIdentity(in: exports)
        return record
    }

    private func within(
        _ id: String, _ request: Request, _ body: (Session) throws(Problem) -> Response
    ) throws(Problem) -> Response {
        let session = try sessions.begin(id, request.grant)
        defer { session.finish() }
        return try body(session)
    }

    private func json<Value: Decodable>(
        _ type: Value.Type, _ request: Request
    ) throws(Problem) -> Value {
        do throws(WireError) {
            return try WireJSON.decode(type, from: request.bytes)
        } catch {
            throw Problem(error)
        }
    }

    /// The raw bytes, whole or in part (RFC 9110, section 14).
    private func content(of name: String, _ request: Request) throws(Problem) -> Response {
        let opened = try contents.open(name, exports, request.peer, request.grant)
        let size = opened.device.geometry.size
        let conditions = Preconditions(request.headers)
        let tag = opened.device.entityTag
        switch conditions.verdict(tag: tag) {
        case .proceed: break
        case .notModified:
            var response = Response(.notModified)
            if let tag { response.headers.add(name: "ETag", value: tag) }
            return response
        case .failed:
            throw Problem(
                .malformed, status: 412, "The device has changed",
                detail: "its content is not, or not known to be, what If-Match names",
                object: name)
        }
        // Only GET has ranges.
        let isWhole = request.method != .GET || !conditions.allowsRange(tag: tag)
        let asked = request.headers["Range"]
        let header = isWhole || asked.count != 1 ? nil : asked[0]
        let permission = Permission(request.grant, request.peer, opened.found)
        func content(_ range: ByteRange) -> ContentSource {
            ContentSource(
                opened.device, range, owner: opened, permission, place: opened.place)
        }
        var response: Response
        switch RangeRequest(header, size: size) {
        case .all:
            response = Response(.ok)
            let range = ByteRange(0, to: size)
            response.body = .stream(content(range))
        case .part(let range):
            response = Response(.partialContent)
            response.headers.add(
                name: "Content-Range", value: "bytes \(range.offset)-\(range.end - 1)/\(size)")
            response.body = .stream(content(range))
        case .unsatisfiable:
            response = Response(
                Problem(
                    .malformed, status: 416, "The range is not satisfiable",
                    detail: "the device has \(size) bytes", object: name))
            response.headers.add(name: "Content-Range", value: "bytes */\(size)")
        }
        response.headers.add(name: "Accept-Ranges", value: "bytes")
        if case .stream = response.body {
            response.headers.add(name: "Content-Type", value: MediaType.bytes)
            if let tag { response.headers.add(name: "ETag", value: tag) }
        }
        return response
    }
}

extension Preconditions {
    fileprivate init(_ headers: HTTPHeaders) {
        func field(_ name: String) -> String? {
            let lines = headers[name]
            return lines.isEmpty ? nil : lines.joined(separator: ",")
        }
        self.init(
            ifMatch: field("If-Match"), ifNoneMatch: field("If-None-Match"),
            ifRange: field("If-Range"))
    }
}
