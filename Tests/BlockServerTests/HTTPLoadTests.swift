// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import BlockServer
import Digests
import Foundation
import LinuxIO
import TestSupport
import Testing
import WireProtocol

/// Memory stays bounded whatever clients do, and the server still answers other clients.
@Suite(.serialized, .blocking, .timeLimit(.minutes(60))) struct HTTPLoadTests {
    private static let bound = 200 << 20
    private let scratch: ScratchDirectory
    private let image: SeededImage

    init() throws {
        scratch = try ScratchDirectory()
        image = try SeededImage(scratch, size: 32 << 20)
    }

    private static func ask(
        _ port: Int, _ method: String, _ path: String, _ headers: [String] = [],
        body: [UInt8]? = nil
    ) throws -> HTTPAnswer {
        try HTTPConnection(port: port).ask(method, path, headers, body: body)
    }

    private func session(_ port: Int, block: Int = 4096) throws -> SessionRecord {
        let body = WireJSON.encode(Wire.sessionRequest(.read, block: block))
        return try Self.ask(
            port, "POST", Route.sessions(device: image.path).path, [Wire.json], body: body
        ).decoded(as: SessionRecord.self)
    }

    private enum Load: String, CaseIterable {
        case content, read, scatteredRead, compare, hugeRegions, halfBodies
    }

    /// What each of many clients sends.
    private func request(_ load: Load, port: Int) throws -> [UInt8] {
        if load == .content {
            return HTTPConnection.request("GET", Route.content(image.path).path)
        }
        let record = try session(port, block: load == .hugeRegions ? 16 << 20 : 512)
        let path = Route.session(record.session).path
        func post(_ name: String, _ body: [UInt8]) -> [UInt8] {
            HTTPConnection.request("POST", path + name, [Wire.frames], body: body)
        }
        switch load {
        case .content: return []
        case .read: return post("/read", try Wire.read((0, 2 << 20)))
        case .scatteredRead:
            let step = max(record.alignment, 512)
            let count = min(8192, (2 << 20) / step)
            let extents = (0..<count).map {
                Extent(ByteRange(offset: 2 * $0 * step % (16 << 20), length: step), .data)
            }
            return post("/read", try Wire.extents(extents))
        case .compare, .hugeRegions:
            let range = ByteRange(offset: 0, length: 16 << 20)
            let count = range.length / record.region
            return post("/compare", try Wire.compare(range, digests: count))
        case .halfBodies:
            let head = post("/write", []).dropLast(4)
            return Array(
                String(decoding: head, as: UTF8.self)
                    .replacingOccurrences(of: "Content-Length: 0", with: "Content-Length: 70000")
                    .utf8)
                + Array("\r\n\r\n".utf8) + [UInt8](repeating: 1, count: 60_000)
        }
    }

    @Test(arguments: Load.allCases)
    private func `clients that send requests and never read cost no more memory than the budget`(
        load: Load
    ) throws {
        let server = try ServeProcess(image.path, options: ["--session-timeout", "3600"])
        let request = try request(load, port: server.port)
        _ = try Self.ask(server.port, "GET", "/v1")
        let before = server.memory.now
        var clients: [HTTPConnection] = []
        for _ in 0..<128 {
            let client = try HTTPConnection(port: server.port)
            try client.send(request)
            clients.append(client)
        }
        for _ in 0..<20 {
            // The server answers other clients within the timeout of a connection.
            #expect(try Self.ask(server.port, "GET", "/v1").status == 200)
            usleep(50_000)
        }
        print("\(load): \(before >> 20) MiB, then \(server.memory.peak >> 20) MiB at most")
        #expect(server.memory.peak < Self.bound)
        clients = []
        #expect(becomesTrue { server.descriptors < 40 })
        #expect(
            try Self.ask(server.port, "GET", Route.content(image.path).path).body == image.bytes)
        server.process.signal(SIGTERM)
        #expect(try server.process.wait().status == 0)
    }

    @Test func `the memory budget is whole again when clients are gone`() throws {
        let server = try TestServer(image.path)
        let path = Route.session(try server.session(image.path, .read).session).path
        let read = HTTPConnection.request(
            "POST", path + "/read", [Wire.frames], body: try Wire.read((0, 2 << 20)))
        var clients: [HTTPConnection] = []
        for index in 0..<64 {
            let client = try HTTPConnection(port: server.port)
            switch index % 3 {
            case 0: try client.send(read)
            case 1: try client.send(HTTPConnection.request("GET", Route.content(image.path).path))
            default: try client.send(Array(read[..<(read.count - 10)]))
            }
            clients.append(client)
        }
        #expect(becomesTrue { server.server.freeMemory < 50 << 20 })
        clients = []
        #expect(becomesTrue { server.server.freeMemory == 64 << 20 })
        #expect(becomesTrue { server.server.connectionCount == 0 })
    }

    @Test func `a client that reads slowly, but reads, gets all of its answer`() throws {
        let server = try TestServer(image.path) { $0.patience = 2 }
        // On a busy machine the client may be silent for too long.
        let isWhole = holdsUndisturbed {
            let received = try? readSlowly(server.port)
            return received?.suffix(image.bytes.count).elementsEqual(image.bytes) == true
        }
        #expect(isWhole)
    }

    /// Reads the image for much longer in all than patience lasts, but is never silent for so long.
    private func readSlowly(_ port: Int) throws -> [UInt8] {
        let connection = try HTTPConnection(port: port)
        try connection.send(
            HTTPConnection.request(
                "GET", Route.content(image.path).path, ["Connection: close"]))
        var received: [UInt8] = []
        while received.count < 8 << 20 {
            received += try connection.socket.receive(count: 128 << 10)
            usleep(100_000)
        }
        return try received + connection.socket.receive(count: 2 * image.bytes.count)
    }

    @Test func `a client that reads nothing is disconnected when patience ends`() throws {
        let server = try TestServer(image.path) { $0.patience = 0.5 }
        let connection = try HTTPConnection(port: server.port)
        try connection.send(HTTPConnection.request("GET", Route.content(image.path).path))
        // No connection is open before this one is accepted either.
        #expect(try !connection.socket.receive(limit: 1).isEmpty)
        #expect(becomesTrue { server.server.connectionCount == 0 })
        #expect(becomesTrue { server.server.freeMemory == 64 << 20 })
    }

    @Test func `a client that takes a byte now and then is disconnected when patience ends`() throws
    {
        let server = try TestServer(image.path) { $0.patience = 0.5 }
        let connection = try HTTPConnection(port: server.port)
        try connection.send(HTTPConnection.request("GET", Route.content(image.path).path))
        // It is never silent, but it takes at most 20 bytes a second.
        let isClosed = becomesTrue {
            usleep(50_000)
            _ = try? connection.socket.receive(limit: 1)
            return server.server.connectionCount == 0
        }
        #expect(isClosed)
        #expect(becomesTrue { server.server.freeMemory == 64 << 20 })
    }

    @Test func `SIGTERM finishes running requests, flushes, and ends with 0`() throws {
        let target = try SeededImage(scratch, "target", size: 1 << 20, seed: 3)
        let server = try ServeProcess(target.path + ":rw", image.path)
        let body = WireJSON.encode(Wire.sessionRequest(.write, size: 1 << 20))
        let session = try Self.ask(
            server.port, "POST", Route.sessions(device: target.path).path, [Wire.json], body: body
        ).decoded(as: SessionRecord.self).session
        let data = [UInt8](repeating: 4, count: 8192)
        let written = try Self.ask(
            server.port, "POST", Route.write(session: session).path, [Wire.frames],
            body: Wire.write(data, at: 0))
        #expect(written.status == 204)
        let reader = try HTTPConnection(port: server.port)
        try reader.send(HTTPConnection.request("GET", Route.content(image.path).path))
        #expect(try becomesTrue { try server.log().contains("download") })
        server.process.signal(SIGTERM)
        #expect(becomesTrue { (try? StreamSocket(port: server.port)) == nil })
        #expect(try reader.answer().body == image.bytes)
        let result = try server.process.wait()
        #expect(result.status == 0)
        let lines = result.errors.split(separator: "\n").filter { $0.contains("session ends") }
        #expect(lines.count == 1 && lines[0].contains("end=\"server ended\""))
        #expect(lines[0].contains("written=8192") && lines[0].contains(target.path))
        #expect(try Array([UInt8](contentsOf: target.path).prefix(8192)) == data)
    }
}
