// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import Digests
internal import LinuxIO
internal import NIOCore
internal import NIOHTTP1
internal import WireProtocol

/// NIO has one, too.
typealias IOError = LinuxIO.IOError

/// What the server does with requests; each blocks, on a thread of the queue.
final class Service: Sendable {
    private let exports: ExportTable
    private let version: String
    private let contents = ContentCache()
    private let pdiffcopy: PdiffcopyService
    let sessions: SessionTable

    init(exports: ExportTable, sessions: SessionTable, version: String) {
        self.exports = exports
        self.sessions = sessions
        self.version = version
        pdiffcopy = PdiffcopyService(exports: exports, sessions: sessions)
    }

    /// Does what a request asks for.
    ///
    /// - Parameters:
    ///   - request: its method is one that its route has.
    ///   - memory: of the thread, at least `Limits.payload`.
    /// - Returns: the answer, a problem where something went wrong.
    func respond(
        to request: Request, _ memory: UnsafeMutableRawBufferPointer
    ) -> Response {
        do throws(Problem) { return try answer(request, memory) } catch {
            var response = Response(error)
            if case .pdiffcopy = request.route { response.tellReasonInStatusLine() }
            return response
        }
    }

    private func answer(
        _ request: Request, _ memory: UnsafeMutableRawBufferPointer
    ) throws(Problem) -> Response {
        switch request.route {
        case .info:
            return Response(
                .ok,
                json: ServerRecord(
                    version: version, features: ["sessions", "content", SessionRequest.volumes],
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
            let session = try sessions.open(device, asked, peer: request.peer, request.grant)
            return Response(.created, json: session.record)
        case .session(let id) where request.method == .DELETE:
            return try within(id, request) { session throws(Problem) in
                // A write that its client has given up may still be in work.
                session.waitForOthers()
                try session.commit(size: nil)
                sessions.end(session, how: "abandoned")
                return Response(.noContent)
            }
        case .session(let id):
            return try within(id, request) { session throws(Problem) in
                var record = session.record
                record.size = session.device.geometry.size
                record.stamp = session.device.contentStamp()?.marks
                record.lastingStamp = session.device.lastingStamp()?.marks
                do throws(IOError) { try session.device.checkSize() } catch { throw Problem(error) }
                return Response(.ok, json: record)
            }
        case .compare(let id):
            return try within(id, request) { session throws(Problem) in
                Response(.ok, frames: try session.compare(request.bytes, memory))
            }
        case .read(let id):
            return try within(id, request) { session throws(Problem) in
                Response(.ok, frames: try session.read(request.bytes, memory))
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
                try session.commit(size: asked.size)
                guard asked.release else { return Response(.noContent) }
                let warnings = sessions.finish(session)
                sessions.end(session, how: "committed")
                return warnings.isEmpty
                    ? Response(.noContent) : Response(.ok, json: CommitRecord(warnings: warnings))
            }
        case .pdiffcopy(let call):
            return try pdiffcopy.answer(call, request, memory)
        }
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
        let opened = try contents.open(name, exports, request.grant)
        let size = opened.device.geometry.size
        // There is no validator that a conditional range could agree with.
        // Only GET has ranges.
        let isWhole = request.headers.contains(name: "If-Range") || request.method != .GET
        let asked = request.headers["Range"]
        let header = isWhole || asked.count != 1 ? nil : asked[0]
        var response: Response
        switch RangeRequest(header, size: size) {
        case .all:
            response = Response(.ok)
            let range = ByteRange(0, to: size)
            response.body = .stream(ContentSource(opened.device, range, owner: opened))
        case .part(let range):
            response = Response(.partialContent)
            response.headers.add(
                name: "Content-Range", value: "bytes \(range.offset)-\(range.end - 1)/\(size)")
            response.body = .stream(ContentSource(opened.device, range, owner: opened))
        case .unsatisfiable:
            var problem = Problem(
                .malformed, status: 416, "The range is not satisfiable",
                detail: "the device has \(size) bytes")
            problem.object = name
            response = Response(problem)
            response.headers.add(name: "Content-Range", value: "bytes */\(size)")
        }
        response.headers.add(name: "Accept-Ranges", value: "bytes")
        if case .stream = response.body {
            response.headers.add(name: "Content-Type", value: MediaType.bytes)
        }
        return response
    }

    /// Offers other exports from now on; sessions go on.
    func replace(exports new: [ExportSelector]) {
        exports.replace(new)
        contents.forgetAll()
    }

    /// What is to be done from time to time.
    func tidy() {
        sessions.endSilent()
        contents.forgetOld()
        pdiffcopy.forgetOld()
    }
}
