// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import BlockServer
import DeviceProbe
import Digests
import Foundation
import Logging
import Synchronization
import SystemPackage
import TestSupport
import Testing
import WireProtocol

/// What a server has logged, one entry a line.
final class LogLines: Sendable {
    private let lines = Mutex<[String]>([])
    var all: [String] { lines.withLock { $0 } }
    func add(_ line: String) { lines.withLock { $0.append(line) } }

    func all(with text: String) -> [String] { all.filter { $0.contains(text) } }
}

struct LineHandler: LogHandler {
    let lines: LogLines
    var metadata: Logger.Metadata = [:]
    var logLevel = Logger.Level.info

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        let fields = (event.metadata ?? [:]).sorted { $0.key < $1.key }
        lines.add("\(event.message) " + fields.map { "\($0)=\($1)" }.joined(separator: " "))
    }
}

/// A server in this process, on a port of its own; it is stopped with this object.
final class TestServer: Sendable {
    let server: BlockServer
    let log = LogLines()
    let port: Int

    /// Starts a server.
    ///
    /// - Parameters:
    ///   - exports: as after `--export`.
    ///   - change: sets other options.
    /// - Throws: when it cannot listen.
    init(
        _ exports: String..., change: (inout BlockServer.Options) -> Void = { _ in }
    ) throws {
        let log = log
        var options = BlockServer.Options(
            address: .host("127.0.0.1", port: 0),
            exports: try exports.map { try ExportSelector($0) },
            logger: Logger(label: "test") { _ in LineHandler(lines: log) })
        options.threads = 4
        change(&options)
        server = try BlockServer(options)
        port = server.port ?? 0
    }

    deinit { server.stop() }

    /// Sends one request on a connection of its own.
    func ask(
        _ method: String, _ path: String, _ headers: [String] = [], body: [UInt8]? = nil
    ) throws -> HTTPAnswer {
        try HTTPConnection(port: port).ask(method, path, headers, body: body)
    }
}

/// An answer as it came.
struct HTTPAnswer {
    var status: Int
    /// The reason phrase of the status line.
    var reason: String
    /// Names in lower case.
    var headers: [String: String]
    var body: [UInt8]

    var text: String { String(decoding: body, as: UTF8.self) }

    func decoded<Value: Decodable>(as type: Value.Type) throws -> Value {
        try body.withUnsafeBytes { try WireJSON.decode(type, from: $0) }
    }

    /// The problem's kind; `nil` when the body is none, or one of another status.
    var problem: Problem.Kind? {
        guard headers["content-type"] == MediaType.problem,
            let problem = try? decoded(as: Problem.self), problem.status == status
        else { return nil }
        return problem.kind
    }
}

/// A client's connection, without any of libcurl's good manners.
final class HTTPConnection {
    let socket: StreamSocket
    private var received: [UInt8] = []

    /// - Parameter source: the last byte of the client's address, 127.0.0.x.
    init(port: Int, patience: Double = isSanitized ? 120 : 20, from source: UInt8 = 1) throws {
        socket = try StreamSocket(port: port, from: source)
        socket.limitWaiting(to: patience)
    }

    func send(_ text: String) throws { try socket.send(text) }
    func send(_ bytes: [UInt8]) throws { try socket.send(bytes) }

    /// The bytes of a request.
    static func request(
        _ method: String, _ path: String, _ headers: [String] = [], body: [UInt8]? = nil
    ) -> [UInt8] {
        var lines = ["\(method) \(path) HTTP/1.1", "Host: localhost"] + headers
        if let body { lines.append("Content-Length: \(body.count)") }
        return Array((lines.joined(separator: "\r\n") + "\r\n\r\n").utf8) + (body ?? [])
    }

    func ask(
        _ method: String, _ path: String, _ headers: [String] = [], body: [UInt8]? = nil
    ) throws -> HTTPAnswer {
        try send(Self.request(method, path, headers, body: body))
        return try answer(isHead: method == "HEAD")
    }

    /// Reads one answer.
    ///
    /// - Throws: also where the connection ends before it is complete.
    func answer(isHead: Bool = false) throws -> HTTPAnswer {
        let mark = Array("\r\n\r\n".utf8)
        var end = received.firstRange(of: mark)
        while end == nil {
            try receiveMore()
            end = received.firstRange(of: mark)
        }
        guard let end else { throw Errno.connectionReset }
        let lines = String(decoding: received[..<end.lowerBound], as: UTF8.self)
            .components(separatedBy: "\r\n")
        received.removeSubrange(..<end.upperBound)
        var headers: [String: String] = [:]
        for line in lines.dropFirst() {
            let parts = line.split(separator: ":", maxSplits: 1)
            headers[parts[0].lowercased()] =
                parts.count > 1
                ? parts[1].trimmingCharacters(in: .whitespaces) : ""
        }
        let words = lines[0].split(separator: " ", maxSplits: 2).map(String.init)
        let status = words.dropFirst().first.flatMap { Int($0) } ?? 0
        let reason = words.count > 2 ? words[2] : ""
        if headers["transfer-encoding"] == "chunked", !isHead {
            let body = try chunks()
            return HTTPAnswer(status: status, reason: reason, headers: headers, body: body)
        }
        let length = isHead || status < 200 ? 0 : headers["content-length"].flatMap { Int($0) } ?? 0
        while received.count < length { try receiveMore() }
        let body = Array(received[..<length])
        received.removeSubrange(..<length)
        return HTTPAnswer(status: status, reason: reason, headers: headers, body: body)
    }

    /// A body in chunks (RFC 9112, section 7.1), without extensions and trailers.
    private func chunks() throws -> [UInt8] {
        var body: [UInt8] = []
        let mark = Array("\r\n".utf8)
        while true {
            guard let end = received.firstRange(of: mark) else {
                try receiveMore()
                continue
            }
            let digits = String(decoding: received[..<end.lowerBound], as: UTF8.self)
            guard let count = Int(digits, radix: 16) else { throw Errno.badMessage }
            while received.count < end.upperBound + count + mark.count { try receiveMore() }
            body += received[end.upperBound..<end.upperBound + count]
            received.removeSubrange(..<(end.upperBound + count + mark.count))
            if count == 0 { return body }
        }
    }

    private func receiveMore() throws {
        let more = try socket.receive()
        if more.isEmpty { throw Errno.connectionReset }
        received += more
    }

    /// Whether the server has ended the connection and sent nothing more.
    func isEnded() throws -> Bool { try received.isEmpty && socket.receive().isEmpty }
}

/// Frames and bodies as a client makes them; all sessions of these tests use SHA-256.
enum Wire {
    static let frames = "Content-Type: \(MediaType.frames)"
    static let json = "Content-Type: \(MediaType.json)"

    static func sealed(_ content: [UInt8]) throws -> [UInt8] {
        var hasher = try BlockHasher(try DigestMethod(named: "sha256"), key: nil)
        var frame = content + [UInt8](repeating: 0, count: 32)
        _ = try frame.withUnsafeMutableBytes {
            try SealedFrame.seal($0, count: content.count, &hasher)
        }
        return frame
    }

    /// A write of data extents, or with no data a read request.
    static func extents(_ extents: [Extent], data: [UInt8] = []) throws -> [UInt8] {
        let table = ExtentFrame.tableSize(count: extents.count)
        let bytes = [UInt8](unsafeUninitializedCapacity: table) { memory, count in
            ExtentFrame.writeTable(extents, to: UnsafeMutableRawBufferPointer(memory))
            count = table
        }
        return try sealed(data + bytes)
    }

    static func read(_ ranges: (Int, Int)...) throws -> [UInt8] {
        try extents(ranges.map { Extent(ByteRange(offset: $0.0, length: $0.1), .data) })
    }

    static func write(_ data: [UInt8], at offset: Int) throws -> [UInt8] {
        try extents([Extent(ByteRange(offset: offset, length: data.count), .data)], data: data)
    }

    static func compare(_ range: ByteRange, digests: Int) throws -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: CompareRequest.headerSize() + digests * 32)
        bytes.withUnsafeMutableBytes { CompareRequest.writeHeader([range], to: $0) }
        return try sealed(bytes)
    }

    static func sessionRequest(
        _ mode: SessionRequest.Mode, block: Int = 4096, size: Int? = nil, run: String? = nil
    ) -> SessionRequest {
        var request = SessionRequest(mode: mode, block: block, digest: "sha256", key: nil)
        request.run = run
        if let size {
            request.source = SourceRecord(
                SourceFacts(
                    name: "source", size: size, content: .empty, logicalSector: nil, identity: nil),
                boot: nil)
        }
        return request
    }
}

extension TestServer {
    /// Asks for a session.
    func open(
        _ path: String, _ mode: SessionRequest.Mode, block: Int = 4096, size: Int? = nil,
        run: String? = nil
    ) throws -> HTTPAnswer {
        let request = Wire.sessionRequest(mode, block: block, size: size, run: run)
        return try ask(
            "POST", Route.sessions(device: path).path, [Wire.json], body: WireJSON.encode(request))
    }

    func session(
        _ path: String, _ mode: SessionRequest.Mode, block: Int = 4096, size: Int? = nil,
        run: String? = nil
    ) throws -> SessionRecord {
        let answer = try open(path, mode, block: block, size: size, run: run)
        // A failure shows the text of the refusal, not a decoding error.
        try #require(answer.status == 201, "\(answer.text)")
        return try answer.decoded(as: SessionRecord.self)
    }

    func commit(_ session: String, release: Bool = true) throws -> HTTPAnswer {
        try ask(
            "POST", Route.commit(session: session).path, [Wire.json],
            body: WireJSON.encode(CommitRequest(release: release)))
    }

    func write(_ session: String, _ data: [UInt8], at offset: Int) throws -> HTTPAnswer {
        try ask(
            "POST", Route.write(session: session).path, [Wire.frames],
            body: Wire.write(data, at: offset))
    }
}

/// An image with content that a seed determines.
struct SeededImage {
    let path: String
    let bytes: [UInt8]

    init(_ scratch: ScratchDirectory, _ name: String = "a.img", size: Int, seed: UInt64 = 1) throws
    {
        path = scratch.file(name)
        var random = SeededGenerator(seed: seed)
        bytes = random.bytes(size)
        try Data(bytes).write(to: URL(fileURLWithPath: path))
    }
}

/// An image with content that a seed determines, and a server of it.
struct ServedImage {
    let scratch: ScratchDirectory
    let image: SeededImage
    let server: TestServer
    /// The path of the image's content on the server.
    let path: String

    init(size: Int) throws {
        scratch = try ScratchDirectory()
        image = try SeededImage(scratch, size: size)
        server = try TestServer(image.path)
        path = Route.content(image.path).path
    }

    /// Asks for the content, on a connection of its own.
    func ask(_ method: String, _ headers: [String] = []) throws -> HTTPAnswer {
        try server.ask(method, path, headers)
    }
}

/// Whether a program is there.
func isInstalled(_ name: String) -> Bool {
    (try? run("sh", "-c", "command -v \(name)").status) == 0
}
