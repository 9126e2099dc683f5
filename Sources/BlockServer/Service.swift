// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import DeviceProbe
internal import Digests
internal import Glibc
internal import LinuxIO
internal import Logging
internal import NIOCore
internal import NIOHTTP1
internal import Synchronization
internal import WireProtocol

/// NIO has one, too.
typealias IOError = LinuxIO.IOError

/// A request whose head was accepted and whose body, if any, is complete.
struct Request: Sendable {
    var route: Route
    var method: HTTPMethod
    var headers: HTTPHeaders
    var body: RequestBody?
    var peer: String
    var grant: Grant

    var bytes: UnsafeRawBufferPointer {
        body?.bytes ?? UnsafeRawBufferPointer(start: nil, count: 0)
    }
}

/// What a request is answered with.
struct Response: Sendable {
    enum Body: Sendable {
        case bytes(ByteBuffer)
        /// A range of a device, read while it is sent.
        case content(OpenedContent, ByteRange)
    }
    var status: HTTPResponseStatus
    var headers = HTTPHeaders()
    var body = Body.bytes(ByteBuffer())

    init(_ status: HTTPResponseStatus) { self.status = status }

    init(_ status: HTTPResponseStatus, frames: ByteBuffer) {
        self.status = status
        body = .bytes(frames)
    }

    init(_ status: HTTPResponseStatus, json: some Encodable) {
        self.status = status
        headers.add(name: "Content-Type", value: MediaType.json)
        body = .bytes(ByteBuffer(bytes: WireJSON.encode(json)))
    }

    init(_ problem: Problem) {
        status = HTTPResponseStatus(statusCode: problem.status)
        headers.add(name: "Content-Type", value: MediaType.problem)
        if problem.status == 503 { headers.add(name: "Retry-After", value: "1") }
        body = .bytes(ByteBuffer(bytes: WireJSON.encode(problem)))
    }
}

/// What the server does with requests; each blocks, on a thread of the queue.
final class Service: Sendable {
    private let exports: ExportTable
    private let version: String
    private let contents = ContentCache()
    let sessions: SessionTable

    init(exports: ExportTable, sessions: SessionTable, version: String) {
        self.exports = exports
        self.sessions = sessions
        self.version = version
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
        do throws(Problem) { return try answer(request, memory) } catch { return Response(error) }
    }

    private func answer(
        _ request: Request, _ memory: UnsafeMutableRawBufferPointer
    ) throws(Problem) -> Response {
        switch request.route {
        case .info:
            return Response(
                .ok,
                json: ServerRecord(
                    version: version, features: ["sessions", "content"],
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
                if asked.release { sessions.end(session, how: "committed") }
                return Response(.noContent)
            }
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
            response.body = .content(opened, ByteRange(0, to: size))
        case .part(let range):
            response = Response(.partialContent)
            response.headers.add(
                name: "Content-Range", value: "bytes \(range.offset)-\(range.end - 1)/\(size)")
            response.body = .content(opened, range)
        case .unsatisfiable:
            var problem = Problem(
                .malformed, status: 416, "The range is not satisfiable",
                detail: "the device has \(size) bytes")
            problem.object = name
            response = Response(problem)
            response.headers.add(name: "Content-Range", value: "bytes */\(size)")
        }
        response.headers.add(name: "Accept-Ranges", value: "bytes")
        if case .content = response.body {
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
    }
}

/// A device that is read as it is, beside whoever has it.
final class OpenedContent: Sendable {
    let device: any BlockDevice
    fileprivate let anchor: ExportTable.Anchor?

    init(_ device: any BlockDevice, _ anchor: ExportTable.Anchor?) {
        self.device = device
        self.anchor = anchor
    }

    /// Reads what a client asked for, which need not be aligned.
    ///
    /// - Parameters:
    ///   - range: shorter than the memory by two alignments at least.
    ///   - memory: of the thread.
    /// - Returns: the bytes, in the memory.
    /// - Throws: what reading the device throws.
    func read(
        _ range: ByteRange, _ memory: UnsafeMutableRawBufferPointer
    ) throws(IOError) -> UnsafeRawBufferPointer {
        let unit = device.geometry.alignment
        let start = range.offset / unit * unit
        let end = min((range.end + unit - 1) / unit * unit, device.geometry.size)
        let bytes = UnsafeMutableRawBufferPointer(rebasing: memory[..<(end - start)])
        try device.read(into: bytes, at: start)
        return UnsafeRawBufferPointer(
            rebasing: bytes[(range.offset - start)..<(range.end - start)])
    }
}

/// Devices whose content was asked for a moment ago: readers ask for one range after the other.
final class ContentCache: Sendable {
    private struct Entry {
        var content: OpenedContent
        /// What the device is called.
        var name: String
        var path: String
        var identity: DeviceIdentity?
        var size: Int
        var used: ContinuousClock.Instant
    }
    /// What is one client's is no other's.
    private struct Key: Hashable {
        var name: String
        var grant: Grant
    }
    private let entries = Mutex<[Key: Entry]>([:])
    private static let lifetime = Duration.seconds(5)
    private static let limit = 16

    /// Opens what a name leads to.
    ///
    /// - Throws: 404 where it is not there, or no longer the same.
    func open(
        _ name: String, _ exports: ExportTable, _ grant: Grant
    ) throws(Problem) -> OpenedContent {
        let key = Key(name: name, grant: grant)
        if let known = known(key, exports) { return known }
        let found = try exports.find(name, for: grant)
        let device: any BlockDevice
        do throws(IOError) {
            if found.description?.isImage == true {
                device = try ImageFile(path: found.path, name: found.name, access: .read)
            } else {
                device = try BlockSpecialFile(path: found.path, name: found.name, access: .read)
            }
        } catch {
            throw Problem(error)
        }
        let content = OpenedContent(device, found.anchor)
        let entry = Entry(
            content: content, name: found.name, path: found.path, identity: found.identity,
            size: device.geometry.size, used: ContinuousClock().now)
        entries.withLock { entries in
            if entries.count >= Self.limit { entries.removeAll() }
            entries[key] = entry
        }
        return content
    }

    private func known(_ key: Key, _ exports: ExportTable) -> OpenedContent? {
        guard let entry = entries.withLock({ $0[key] }) else { return nil }
        let status = try? FileStatus(path: entry.path)
        let isSame =
            switch entry.identity {
            case .device(let number): status?.kind == .blockDevice && status?.device == number
            case .image(let file, _):
                status.map { FileIdentity($0) } == file && status?.size == entry.size
                    && (entry.content.anchor == nil || exports.leads(entry.name, to: file))
            case .newImage, nil: false
            }
        guard isSame, ContinuousClock().now - entry.used < Self.lifetime else {
            entries.withLock { $0[key] = nil }
            return nil
        }
        entries.withLock { $0[key]?.used = ContinuousClock().now }
        return entry.content
    }

    /// Forgets all, since other exports may be offered now.
    func forgetAll() { entries.withLock { $0.removeAll() } }

    func forgetOld() {
        let limit = ContinuousClock().now - Self.lifetime
        entries.withLock { entries in entries = entries.filter { $0.value.used > limit } }
    }
}
