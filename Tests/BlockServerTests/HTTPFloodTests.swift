// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import BlockServer
import Foundation
import TestSupport
import Testing
import WireProtocol

private let environment = ProcessInfo.processInfo.environment

/// A good client beside clients that are slow, greedy and silent.
@Suite(.serialized, .blocking, .timeLimit(.minutes(60))) struct HTTPFloodTests {
    /// The duration; the speed is checked only if it is at least a minute.
    private static let seconds = environment["BLKFERRY_FLOOD_SECONDS"].flatMap { Int($0) } ?? 3
    private static let tokens = (0..<3).map { "token-\($0)-of-enough-characters" }
    private let scratch: ScratchDirectory
    private let image: SeededImage

    init() throws {
        scratch = try ScratchDirectory()
        image = try SeededImage(scratch, size: 32 << 20)
    }

    private func bearer(_ client: Int) -> String { "Authorization: Bearer \(Self.tokens[client])" }

    private func start() throws -> ServeProcess {
        let path = scratch.file("tokens")
        let (bad, good, worse) = (Self.tokens[0], Self.tokens[1], Self.tokens[2])
        try "bad \(bad)\ngood \(good)\nworse \(worse)\n".write(
            toFile: path, atomically: false, encoding: .utf8)
        chmod(path, 0o600)
        let images = try scratch.directory("images", ofImages: 100, size: 64 << 10)
        return try ServeProcess(image.path, images + "/", options: ["--token-file", path])
    }

    private func session(_ server: ServeProcess, _ client: Int) throws -> String {
        try HTTPConnection(port: server.port).ask(
            "POST", Route.sessions(device: image.path).path, [Wire.json, bearer(client)],
            body: WireJSON.encode(Wire.sessionRequest(.read))
        ).decoded(as: SessionRecord.self).session
    }

    /// Reads as long as it may.
    ///
    /// - Returns: bytes a second.
    private func speed(_ connection: HTTPConnection, _ session: String, seconds: Double) throws
        -> Double
    {
        let begin = ContinuousClock.now
        var count = 0
        while ContinuousClock.now - begin < .seconds(seconds) {
            let offset = count % image.bytes.count
            let answer = try connection.ask(
                "POST", Route.read(session: session).path, [Wire.frames, bearer(1)],
                body: Wire.read((offset, 2 << 20)))
            #expect(answer.status == 200, "\(answer.text)")
            // Data compares with memcmp; a loop of a debug build would be slower than the server.
            #expect(
                Data(answer.body.prefix(2 << 20))
                    == Data(image.bytes[offset..<offset + (2 << 20)]))
            count += 2 << 20
        }
        return Double(count) / ((ContinuousClock.now - begin) / .seconds(1))
    }

    /// Requests whose answer is not read, or whose body does not arrive.
    private func badRequests(_ session: String, _ client: Int = 0) throws -> [[UInt8]] {
        let read = HTTPConnection.request(
            "POST", Route.read(session: session).path, [Wire.frames, bearer(client)],
            body: try Wire.read((0, 2 << 20)))
        let list = HTTPConnection.request("GET", "/v1/devices", [bearer(client)])
        return [
            HTTPConnection.request("GET", Route.content(image.path).path, [bearer(client)]),
            read, Array(read.dropLast(20)),
            Array([[UInt8]](repeating: list, count: 16).joined()),
            HTTPConnection.request("GET", Route.device("UUID=none").path, [bearer(client)]),
            Array("GET /v1 HTTP/1.1\r\nHost:".utf8), [],
        ]
    }

    @Test func `a good client loses no request, and at most half of its speed`() throws {
        let server = try start()
        let good = try HTTPConnection(port: server.port, patience: 60)
        let session = try self.session(server, 1)
        let alone = try speed(good, session, seconds: Double(Self.seconds) / 3)
        let requests = try badRequests(try self.session(server, 0))
        var bad: [HTTPConnection] = []
        for index in 0..<420 {
            let connection = try HTTPConnection(port: server.port)
            try connection.send(requests[index % requests.count])
            bad.append(connection)
        }
        let beside = try speed(good, session, seconds: Double(Self.seconds))
        // New connections are answered as well.
        for _ in 0..<20 {
            let other = try HTTPConnection(port: server.port, patience: 60)
            #expect(try other.ask("GET", "/v1/devices", [bearer(1)]).status == 200)
        }
        let memory = server.memory.peak >> 20
        print("alone \(Int(alone / 1e6)) MB/s, flooded \(Int(beside / 1e6)) MB/s, \(memory) MiB")
        if Self.seconds >= 60 { #expect(beside > alone / 2) }
        withExtendedLifetime(bad) {}
    }

    @Test func `five hundred hostile connections of one client stay within the bound of memory`()
        throws
    {
        // As for other loads: see `HTTPLoadTests`.
        let bound = 200 << 20
        let server = try start()
        let requests = try badRequests(try session(server, 0))
        var bad: [HTTPConnection] = []
        // One address has at most 512.
        for index in 0..<500 {
            let connection = try HTTPConnection(port: server.port)
            try connection.send(requests[index % requests.count])
            bad.append(connection)
        }
        usleep(1_000_000)
        print("\(bad.count) connections: \(server.memory.peak >> 20) MiB")
        #expect(server.memory.peak < bound)
    }

    @Test func `a thousand hostile connections stay within a bound of memory`() throws {
        // docs/serving.md says 54 MiB; the bound allows for another machine.
        let bound = 240 << 20
        // Each connection takes a descriptor here and one in the server.
        let descriptors = try BlockServer.requireDescriptors()
        try #require(descriptors >= 4096)
        let server = try start()
        // One address and one token have at most 512.
        let clients = [(token: 0, address: UInt8(1)), (token: 2, address: UInt8(2))]
        let requests = try clients.map {
            try badRequests(try session(server, $0.token), $0.token)
        }
        var bad: [HTTPConnection] = []
        for index in 0..<1000 {
            let connection = try HTTPConnection(
                port: server.port, from: clients[index % 2].address)
            let kinds = requests[index % 2]
            try connection.send(kinds[index / 2 % kinds.count])
            bad.append(connection)
        }
        // None of them was rejected.
        #expect(becomesTrue { server.descriptors > bad.count })
        let good = try HTTPConnection(port: server.port, patience: 60, from: 3)
        let answer = try good.ask("GET", Route.device(image.path).path, [bearer(1)])
        #expect(answer.status == 200, "\(answer.text)")
        usleep(1_000_000)
        print("\(bad.count) connections: \(server.memory.peak >> 20) MiB")
        #expect(server.memory.peak < bound)
        withExtendedLifetime(bad) {}
    }

    /// How clients make a server keep input that it has no memory for.
    private enum Hoard: String, CaseIterable {
        case waitingBodies, rejectedBodies, endedBodies, pipelinedBodies, pipelinedRequests, headers
    }

    /// What each connection sends last.
    private func hoard(_ kind: Hoard, _ session: String) -> [UInt8] {
        let body = [UInt8](repeating: 1, count: 2 << 20)
        let compare = HTTPConnection.request(
            "POST", Route.compare(session: session).path, [Wire.frames, bearer(0)], body: body)
        let content = HTTPConnection.request(
            "GET", Route.content(image.path).path, [bearer(0)])
        switch kind {
        case .waitingBodies: return Array(compare.dropLast(10))
        case .endedBodies: return compare
        case .rejectedBodies:
            return HTTPConnection.request("POST", "/v1/none", [bearer(0)], body: body)
        case .pipelinedBodies: return content + compare
        case .pipelinedRequests:
            let short = [[UInt8]](repeating: Array("GET / HTTP/1.1\r\n\r\n".utf8), count: 100_000)
            return content + Array(short.joined())
        case .headers:
            let lines = (0..<24).map { "X-\($0): " + String(repeating: "a", count: 79 << 10) }
            return Array(HTTPConnection.request("GET", "/v1", lines).dropLast(4))
        }
    }

    @Test(arguments: Hoard.allCases)
    private func `input that the server has no memory for stays with the client`(kind: Hoard)
        throws
    {
        // The client's share of the budget is 16 MiB, and the program takes 20 to 30.
        let bound = 100 << 20
        let server = try start()
        let session = try self.session(server, 0)
        let dropped = HTTPConnection.request(
            "POST", Route.compare(session: String(repeating: "0", count: 32)).path,
            [Wire.frames, bearer(0)], body: [UInt8](repeating: 1, count: 2 << 20))
        // These have all of the client's memory.
        let holding = Array(hoard(.waitingBodies, session).prefix(4096))
        let holders = try (0..<8).map { _ in
            let holder = try HTTPConnection(port: server.port)
            try holder.send(holding)
            return holder
        }
        let bytes = hoard(kind, session)
        // Of more downloads the server would reject some, and answer what follows them.
        let count = kind == .pipelinedBodies || kind == .pipelinedRequests ? 50 : 200
        var clients: [HTTPConnection] = []
        for _ in 0..<count {
            let client = try HTTPConnection(port: server.port)
            // Receive buffers grow while the server reads and drops a body.
            try client.send(dropped)
            #expect(try client.answer().status == 404)
            client.socket.limitWaiting(to: 0.05)
            try? client.send(bytes)
            if kind == .endedBodies { client.socket.endSending() }
            clients.append(client)
        }
        usleep(1_000_000)
        print("\(kind): \(clients.count) connections, \(server.memory.peak >> 20) MiB")
        #expect(server.memory.peak < bound)
        withExtendedLifetime((holders, clients)) {}
    }
}
