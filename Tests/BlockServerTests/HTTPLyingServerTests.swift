// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockClient
import BlockDevices
import DeviceProbe
import Digests
import Foundation
import LinuxIO
import SyncEngine
import Synchronization
import SystemPackage
import TestSupport
import Testing
import WireProtocol

/// What a client does with a server that is broken, malicious, or none at all: it says so.
@Suite(.blocking, .timeLimit(.minutes(60))) struct HTTPLyingServerTests {
    private typealias Answer = @Sendable (String) -> (type: String, body: [UInt8])

    private static let size = 1 << 20

    /// A session's record with some fields changed.
    private static func record(_ fields: [String: String] = [:]) -> [UInt8] {
        var all = [
            "session": "\"s\"", "device": "\"d\"", "size": "\(size)", "alignment": "512",
            "block": "4096", "region": "65536", "content": "{\"state\":\"empty\"}",
            "kind": "\"image\"", "rotational": "false", "warnings": "[]", "timeout": "60",
        ]
        all.merge(fields) { _, new in new }
        return Array(("{" + all.map { "\"\($0)\":\($1)" }.joined(separator: ",") + "}").utf8)
    }

    /// A server that answers by the path of the request.
    ///
    /// - Parameter failure: the status of all answers; `nil` for success.
    private static func server(
        failure: Int? = nil, _ answer: @escaping Answer
    ) throws -> ScriptedServer {
        ScriptedServer.streams { (connection) throws(Errno) in
            while let request = try HTTPMessage(from: connection) {
                let path = request.head.split(separator: " ").dropFirst().first.map(String.init)
                let (type, body) = answer(path ?? "")
                let success = path?.hasSuffix("/sessions") == true ? 201 : 200
                let status = failure ?? success
                try connection.send(
                    "HTTP/1.1 \(status) OK\r\n"
                        + (type.isEmpty ? "" : "Content-Type: \(type)\r\n")
                        + "Content-Length: \(body.count)\r\n\r\n")
                try connection.send(body)
            }
        }
    }

    private static func open(_ server: ScriptedServer) throws -> RemoteBlockDevice {
        guard case .remote(let location) = try Location("http://127.0.0.1:\(server.port)/d") else {
            throw Errno.invalidArgument
        }
        var options = RemoteServer.Options()
        options.retrySeconds = 0
        return try RemoteBlockDevice(
            try RemoteServer(location, options), for: .init(mode: .read, block: 4096),
            digest: try DigestMethod(named: "sha256"))
    }

    /// A device whose session begins well, and which answers frames with the given bytes.
    private static func device(
        _ fields: [String: String] = [:], _ body: @escaping @Sendable () throws -> [UInt8]
    ) throws -> (ScriptedServer, RemoteBlockDevice) {
        let server = try server { path in
            path.hasSuffix("/read") || path.hasSuffix("/compare")
                ? ("", (try? body()) ?? []) : (MediaType.json, record(fields))
        }
        return (server, try open(server))
    }

    private func isNetwork(_ error: (any Error)?) -> Bool {
        (error as? LinuxIO.IOError)?.isNetwork ?? false
    }

    private func failure(_ work: () throws -> Void) -> (any Error)? {
        do {
            try work()
            return nil
        } catch { return error }
    }

    @Test(arguments: [
        ("size", "-1"), ("size", "9223372036854775808"), ("size", "1e300"), ("size", "\"x\""),
        ("size", "9223372036854775807"), ("size", "0"),
        ("alignment", "0"), ("alignment", "-512"), ("alignment", "9223372036854775807"),
        ("alignment", "7"), ("block", "0"), ("block", "-4096"), ("block", "4095"),
        ("block", "1099511627776"), ("region", "0"), ("region", "4095"), ("region", "12288"),
        ("region", "131072"), ("region", "4096"), ("logicalSector", "2097152"),
        ("region", "1099511627776"), ("logicalSector", "0"), ("logicalSector", "513"),
        ("logicalSector", "-512"), ("sizeBefore", "-1"), ("resizeTo", "-1"),
        ("content", "{\"state\":\"signatures\"}"), ("content", "{\"state\":\"x\"}"),
        ("content", "[]"), ("digest", "\"md5\""), ("digest", "\"\""), ("session", "null"),
        ("warnings", "{}"), ("timeout", "\"soon\""), ("timeout", "0"), ("timeout", "-1"),
        ("timeout", "1e300"), ("session", "\"\""), ("session", "\"../devices\""),
        ("device", "\"\""), ("kind", "\"disk\""), ("zstd", "0"), ("zstd", "20"),
        ("stamp", "[\(Array(repeating: "1", count: 65).joined(separator: ","))]"),
    ])
    func `a session record with impossible numbers is refused`(field: String, value: String) throws
    {
        let server = try Self.server { _ in (MediaType.json, Self.record([field: value])) }
        let error = failure { _ = try Self.open(server) }
        #expect(error != nil && isNetwork(error), "\(String(describing: error))")
    }

    @Test(arguments: [
        ("text/html", "<html><body>It works!</body></html>"), (MediaType.json, "<html>"),
        (MediaType.json, ""), (MediaType.json, "{}"), (MediaType.json, "[[[[[["),
        (MediaType.problem, "{}"), ("", "x"),
    ])
    func `the error names an answer that is not a blkferry server's`(type: String, body: String)
        throws
    {
        let server = try Self.server { _ in (type, Array(body.utf8)) }
        let error = failure { _ = try Self.open(server) }
        #expect(error != nil && isNetwork(error), "\(String(describing: error))")
    }

    /// Two megabytes; the 1000th byte is in the middle of a character.
    private static let long = "x" + String(repeating: "é", count: 1 << 20)

    /// What the client prints of a server's text at most: 1000 bytes and "…".
    private static let shown = 1003

    /// The texts of an error that are printed beside the client's own name of the device.
    private func texts(of error: (any Error)?) -> [String] {
        guard let error = error as? LinuxIO.IOError else { return [] }
        return [error.operation, error.reason, error.advice ?? ""]
    }

    @Test(arguments: [
        ("device-error", "operation"), ("device-error", "detail"), ("device-error", "advice"),
        ("refused", "detail"), ("refused", "advice"), ("busy", "detail"), ("busy", "advice"),
        ("x", "detail"),
    ])
    func `a long text of a problem is cut`(kind: String, field: String) throws {
        var fields = [
            "type": "urn:blkferry:problem:\(kind)", "title": "t", "operation": "o", "detail": "d",
            "advice": "a",
        ]
        fields[field] = Self.long
        let problem = fields.map { "\"\($0)\":\"\($1)\"" }.joined(separator: ",")
        let body = Array("{\"status\":409,\(problem)}".utf8)
        let server = try Self.server(failure: 409) { _ in (MediaType.problem, body) }
        let texts = texts(of: failure { _ = try Self.open(server) })
        #expect(texts.contains("x" + String(repeating: "é", count: 499) + "…"))
        #expect(texts.allSatisfy { $0.utf8.count <= Self.shown })
    }

    @Test(arguments: ["device", "digest", "snapshot"])
    func `a session record with a name of megabytes is refused`(field: String) throws {
        let body = Self.record([field: "\"\(Self.long)\""])
        let server = try Self.server { _ in (MediaType.json, body) }
        let error = failure { _ = try Self.open(server) }
        #expect(isNetwork(error))
        #expect(texts(of: error).allSatisfy { $0.utf8.count <= Self.shown })
    }

    @Test func `many and long warnings are cut`() throws {
        let all = (["\"\(Self.long)\""] + [String](repeating: "\"w\"", count: 1_000))
            .joined(separator: ",")
        let body = Self.record(["warnings": "[\(all)]"])
        let server = try Self.server { _ in (MediaType.json, body) }
        let device = try Self.open(server)
        let warnings = device.record.warnings
        #expect(warnings.count == 101)
        #expect(warnings.first?.hasSuffix("é…") == true)
        #expect(warnings.last == "… and 901 more")
        #expect(warnings.allSatisfy { $0.utf8.count <= Self.shown })
    }

    @Test(arguments: [0, -1])
    func `a list with a path of megabytes is refused`(size: Int) throws {
        let record =
            "{\"id\":\"i\",\"tags\":[],\"path\":\"\(Self.long)\",\"kind\":\"image\",\"size\":\(size),"
            + "\"logicalSector\":0,\"access\":\"ro\",\"content\":{\"state\":\"empty\"},\"inUseBy\":[]}"
        let body = Array("{\"devices\":[\(record)],\"directories\":[]}".utf8)
        let server = try Self.server { _ in (MediaType.json, body) }
        guard case .remote(let location) = try Location("http://127.0.0.1:\(server.port)") else {
            throw Errno.invalidArgument
        }
        let error = failure { _ = try RemoteServer(location, .init()).exports() }
        #expect(isNetwork(error))
        let texts = texts(of: error)
        #expect(texts.contains { $0.contains("a text has more than") || $0.hasSuffix("…") })
        #expect(texts.allSatisfy { $0.utf8.count <= Self.shown + 100 })
    }

    @Test(arguments: ["[", "{\"a\":"])
    func `JSON of any depth is refused`(opening: String) throws {
        let body = Array(String(repeating: opening, count: 1_000_000).utf8)
        let server = try Self.server { _ in (MediaType.json, body) }
        #expect(isNetwork(failure { _ = try Self.open(server) }))
    }

    @Test(arguments: ["SSH-2.0-OpenSSH_9.2\r\n", "220 mail ESMTP\r\n", "\0\0\0"])
    func `a server that speaks another protocol is an error of the network`(greeting: String) throws
    {
        let server = ScriptedServer.streams { (connection) throws(Errno) in
            try connection.send(greeting)
            _ = try connection.receive()
        }
        #expect(isNetwork(failure { _ = try Self.open(server) }))
    }

    @Test func `a body without end is cut off`() throws {
        let sent = Mutex(0)
        let server = ScriptedServer.streams { (connection) throws(Errno) in
            while try HTTPMessage(from: connection) != nil {
                try connection.send("HTTP/1.1 200 OK\r\nContent-Type: \(MediaType.json)\r\n\r\n")
                let spaces = [UInt8](repeating: 0x20, count: 1 << 20)
                while true {
                    try connection.send(spaces)
                    sent.withLock { $0 += spaces.count }
                }
            }
        }
        #expect(isNetwork(failure { _ = try Self.open(server) }))
        #expect(sent.withLock { $0 } < 128 << 20)
    }

    private enum Lie: String, CaseIterable {
        case nothing, noDigest, wrongDigest, elsewhere, tooShort, tooMuch, beyond, twice, empty
    }

    private static func payload(_ lie: Lie) throws -> [UInt8] {
        func data(_ ranges: (Int, Int)..., bytes: Int) throws -> [UInt8] {
            let extents = ranges.map { Extent(ByteRange(offset: $0.0, length: $0.1), .data) }
            return try Wire.extents(extents, data: [UInt8](repeating: 1, count: bytes))
        }
        switch lie {
        case .nothing: return []
        case .noDigest: return Array(try data((0, 8192), bytes: 8192).dropLast(32))
        case .wrongDigest: return Array(try data((0, 8192), bytes: 8192).dropLast()) + [0]
        case .elsewhere: return try data((8192, 8192), bytes: 8192)
        case .tooShort: return try data((0, 4096), bytes: 4096)
        case .tooMuch: return try data((0, 8192), (8192, 4096), bytes: 12288)
        case .beyond: return try data((0, 4096), (1 << 40, 4096), bytes: 8192)
        case .twice: return try data((0, 4096), (0, 4096), bytes: 8192)
        case .empty: return try data((0, 8192), bytes: 0)
        }
    }

    @Test(arguments: Lie.allCases)
    private func `a payload that does not match the request is refused`(lie: Lie) throws {
        let (server, device) = try Self.device { try Self.payload(lie) }
        defer { server.stop() }
        let buffer = AlignedBuffer(count: 16384)
        buffer.bytes.initializeMemory(as: UInt8.self, repeating: 0xAA)
        let part = UnsafeMutableRawBufferPointer(rebasing: buffer.bytes[4096..<12288])
        let error = failure { try device.read(into: part, at: 0) }
        #expect(error != nil && isNetwork(error), "\(String(describing: error))")
        #expect(buffer.bytes.allSatisfy { $0 == 0xAA })
    }

    /// Zstd frames of one block that repeats a byte, RFC 8878.
    @Test(arguments: [1 << 40, 8192, Limits.body + 1])
    func `a packed payload that is a bomb, or none, is refused`(size: Int) throws {
        let announced = withUnsafeBytes(of: UInt64(size).littleEndian) { Array($0) }
        let block = withUnsafeBytes(of: UInt32(8192 << 3 | 3).littleEndian) { Array($0.prefix(3)) }
        let frame: [UInt8] = [0x28, 0xB5, 0x2F, 0xFD, 0xE0] + announced + block + [0]
        let body = [UInt8](unsafeUninitializedCapacity: frame.count + 8) { memory, count in
            let bytes = UnsafeMutableRawBufferPointer(memory)
            bytes.copyBytes(from: frame)
            PackedFrame.writeFooter(
                count: min(size, Limits.body), .zstd, to: slice(bytes, frame.count, bytes.count))
            count = frame.count + 8
        }
        let (server, device) = try Self.device(["zstd": "1"]) { body }
        defer { server.stop() }
        let buffer = AlignedBuffer(count: 8192)
        let error = failure { try device.read(into: buffer.bytes, at: 0) }
        #expect(isNetwork(error), "\(String(describing: error))")
        #expect(buffer.bytes.allSatisfy { $0 == 0 })
    }

    private static func words(_ values: UInt64...) throws -> [UInt8] {
        try Wire.sealed(
            values.flatMap { word in withUnsafeBytes(of: word.littleEndian) { Array($0) } })
    }

    private static let maps: [[UInt64]] = [
        [0, 0], [.max, 0], [UInt64(size), 1, 4096, 0], [UInt64(size), 1, 0, .max],
        [UInt64(size), 2, 8192, 4096, 0, 4096], [UInt64(size) + 1, 0], [UInt64(size), 1 << 20],
        [UInt64(size), 1 << 32], [4096, 1, 4096, 4096], [UInt64(size), 1, .max - 10, 20],
    ]

    @Test(arguments: maps)
    func `an impossible map is refused`(words: [UInt64]) throws {
        let body = try Wire.sealed(
            words.flatMap { word in withUnsafeBytes(of: word.littleEndian) { Array($0) } })
        let (server, device) = try Self.device { body }
        defer { server.stop() }
        let error = failure { _ = try device.nextData(from: 0) }
        #expect(error != nil && isNetwork(error), "\(String(describing: error))")
    }

    /// A server cuts a map short only where it has no room for more runs.
    @Test func `a map that goes on by a byte each time is refused`() throws {
        let position = Mutex<UInt64>(0)
        let (server, device) = try Self.device {
            let end = position.withLock { position in
                position += 1
                return position
            }
            return try Self.words(end, 0)
        }
        defer { server.stop() }
        #expect(isNetwork(failure { _ = try device.nextData(from: 0) }))
        #expect(position.withLock { $0 } < 10)
    }

    private static let orders: [[UInt32]] = [
        [9, 9, 9], [2, 1, 0], [1, 1], [20], [.max, 0], [UInt32](repeating: 0, count: 17),
    ]

    @Test(arguments: orders)
    func `regions out of order, twice or beyond are refused`(words: [UInt32]) throws {
        var content = withUnsafeBytes(of: UInt32(words.count).littleEndian) { Array($0) }
        for word in words {
            content += withUnsafeBytes(of: word.littleEndian) { Array($0) }
            content += [UInt8](repeating: 0, count: 2 + 16 * 32)
        }
        let body = try Wire.sealed(content)
        let (server, device) = try Self.device { body }
        defer { server.stop() }
        let digests = [UInt8](repeating: 0, count: 16 * 32)
        let error = failure {
            _ = try digests.withUnsafeBytes {
                try device.openChannel().compare([ByteRange(0, to: Self.size)], digests: $0)
            }
        }
        #expect(error != nil && isNetwork(error), "\(String(describing: error))")
    }
}
