// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockServer
import Foundation
import Synchronization
import TestSupport
import Testing
import WireProtocol

@testable import BlockServer

/// What of the server's memory and patience one client can have.
@Suite(.blocking, .timeLimit(.minutes(60))) struct HTTPShareTests {
    private let scratch: ScratchDirectory
    private let image: SeededImage
    private static let tokens = (0..<2).map { "token-\($0)-of-enough-characters" }
    private static let budget = 64 << 20

    init() throws {
        scratch = try ScratchDirectory()
        image = try SeededImage(scratch, size: 8 << 20)
    }

    private func bearer(_ client: Int) -> String { "Authorization: Bearer \(Self.tokens[client])" }

    private func server(
        _ exports: String..., change: (inout BlockServer.Options) -> Void = { _ in }
    ) throws -> TestServer {
        let selectors = try exports.map { try ExportSelector($0) }
        return try TestServer(image.path) {
            $0.exports += selectors
            $0.tokens = Self.tokens.enumerated().map {
                TokenEntry(name: "client\($0.offset)", token: $0.element)
            }
            change(&$0)
        }
    }

    @Test func `a client has a quarter of the memory, and waits for its own share alone`() {
        let budget = MemoryBudget(bytes: 64)
        nonisolated(unsafe) var order: [String] = []
        func take(_ bytes: Int, _ client: String?) {
            _ = budget.take(bytes, for: client) { _ in order.append(client ?? "-") }
        }
        take(10, "a")
        take(10, "a")
        take(1, "a")
        #expect(order == ["a"])
        // What is larger than a share is taken as one.
        take(100, "b")
        take(16, "c")
        take(16, nil)
        #expect(order == ["a", "b", "c", "-"] && budget.free == 6)
        // Who waits for the memory of all comes before who asks later, but not before those whose
        // own share is what they wait for.
        take(7, "d")
        take(1, "e")
        budget.give(10, of: "a")
        #expect(order == ["a", "b", "c", "-", "a", "a"] && budget.free == 5)
        budget.give(100, of: "b")
        #expect(order.suffix(2) == ["d", "e"] && budget.free == 13)
        for (bytes, client) in [(10, "a"), (1, "a"), (16, "c"), (7, "d"), (1, "e")] {
            budget.give(bytes, of: client)
        }
        budget.give(16, of: nil)
        #expect(budget.free == 64)
    }

    @Test func `downloads that a client does not read leave memory to other clients`() throws {
        let server = try server()
        var clients: [HTTPConnection] = []
        for _ in 0..<64 {
            let client = try HTTPConnection(port: server.port)
            try client.send(
                HTTPConnection.request("GET", Route.content(image.path).path, [bearer(0)]))
            clients.append(client)
        }
        #expect(becomesTrue { server.server.freeMemory == Self.budget * 3 / 4 })
        let other = try HTTPConnection(port: server.port)
        for _ in 0..<4 {
            let answer = try other.ask("GET", Route.content(image.path).path, [bearer(1)])
            #expect(answer.body == image.bytes)
        }
        clients = []
        #expect(becomesTrue { server.server.freeMemory == Self.budget })
    }

    private func unreadDownloads(_ count: Int, _ server: TestServer) throws -> [HTTPConnection] {
        let clients = try (0..<count).map { _ in
            let client = try HTTPConnection(port: server.port)
            try client.send(
                HTTPConnection.request("GET", Route.content(image.path).path, [bearer(0)]))
            return client
        }
        #expect(becomesTrue { server.server.freeMemory == Self.budget * 3 / 4 })
        return clients
    }

    @Test func `requests that wait for memory are limited, and end with their connection`() {
        let budget = MemoryBudget(bytes: 64)
        final class Owner {}
        let owners = (0..<3).map { _ in Owner() }
        let answers = Mutex<[String]>([])
        func take(_ owner: Int, _ client: String, limit: Int = 2) -> Bool {
            budget.take(
                16, for: client, owner: ObjectIdentifier(owners[owner]), limit: limit
            ) { isGranted in answers.withLock { $0.append("\(owner) \(isGranted)") } }
        }
        #expect(take(0, "a") && take(1, "a") && take(2, "a"))
        #expect(!take(2, "a") && take(2, "b"))
        #expect(!budget.takeNow(1, for: "a") && budget.takeNow(1, for: "c"))
        #expect(answers.withLock { $0 } == ["0 true", "2 true"])
        budget.forget(ObjectIdentifier(owners[1]))
        #expect(answers.withLock { $0.last } == "1 false")
        budget.give(16, of: "a")
        #expect(answers.withLock { $0.last } == "2 true")
        #expect(budget.free == 64 - 16 - 16 - 1)
    }

    @Test func `a long list counts in the memory of its client`() throws {
        let directory = try scratch.directory("many", ofImages: 300, size: 4096)
        let server = try server(directory + "/")
        let clients = try unreadDownloads(20, server)
        #expect(try server.ask("GET", "/v1/devices", [bearer(0)]).problem == .busy)
        let list = try server.ask("GET", "/v1/devices", [bearer(1)])
        #expect(list.status == 200 && list.body.count > 64 << 10)
        withExtendedLifetime(clients) {}
    }

    @Test func `memory for a body is allocated only if the request is allowed`() throws {
        let server = try server(scratch.file("b.img") + ":rw")
        try FileManager.default.copyItem(atPath: image.path, toPath: scratch.file("b.img"))
        let opened = try server.ask(
            "POST", Route.sessions(device: image.path).path, [Wire.json, bearer(0)],
            body: WireJSON.encode(Wire.sessionRequest(.read)))
        let session = try opened.decoded(as: SessionRecord.self).session
        let (large, expect) = ("Content-Length: 2000000", "Expect: 100-continue")
        func status(_ path: String, _ client: Int = 0) throws -> Int {
            let connection = try HTTPConnection(port: server.port, patience: 10)
            try connection.send(
                HTTPConnection.request(
                    "POST", path, [bearer(client), Wire.frames, large, expect]))
            let answer = try connection.answer()
            #expect(answer.status == 100 || server.server.freeMemory == Self.budget)
            return answer.status
        }
        #expect(try status(Route.write(session: session).path) == 403)
        #expect(try status(Route.write(session: session).path, 1) == 404)
        #expect(try status(Route.write(session: "none").path) == 404)
        #expect(try status("/blocks?offset=0&filename=\(image.path)") == 403)
        #expect(try status("/blocks?offset=0&filename=/no/such.img") == 404)
        #expect(try status("/blocks?offset=0&filename=\(scratch.file("b.img"))") == 100)
    }

    @Test func `a body that comes byte by byte ends its request`() throws {
        let server = try server { $0.patience = 0.5 }
        let connection = try HTTPConnection(port: server.port, patience: 10)
        let head = HTTPConnection.request(
            "POST", Route.sessions(device: image.path).path,
            [bearer(0), Wire.json, "Content-Length: 60000"])
        try connection.send(head)
        // Never silent for as long as patience lasts.
        var sent = 0
        while sent < 400, server.server.connectionCount > 0,
            (try? connection.send(" ")) != nil
        {
            sent += 1
            usleep(50_000)
        }
        #expect(sent < 400)
        #expect(try connection.answer().problem == .timeout)
        #expect(becomesTrue { server.server.freeMemory == Self.budget })
    }

    @Test
    func `a large block comes in pieces, and is written whole, or not at all if it is too large`()
        throws
    {
        let target = try SeededImage(scratch, "target", size: 24 << 20, seed: 4)
        // A quarter of this is less than the block.
        let server = try TestServer(target.path + ":rw") { $0.memory = 16 << 20 }
        var random = SeededGenerator(seed: 5)
        let block = random.bytes(20 << 20)
        let connection = try HTTPConnection(port: server.port)
        let path = "/blocks?filename=\(target.path):overwrite"
        let refused = try connection.ask("POST", "\(path)&offset=\(5 << 20)", body: block)
        #expect(refused.status == 409, "\(refused.text)")
        #expect(try [UInt8](contentsOf: target.path) == target.bytes)
        #expect(try connection.ask("POST", "\(path)&offset=1001", body: block).status == 200)
        var expected = target.bytes
        expected.replaceSubrange(1001..<1001 + block.count, with: block)
        #expect(try [UInt8](contentsOf: target.path) == expected)
        #expect(becomesTrue { server.server.freeMemory == 16 << 20 })
    }
}
