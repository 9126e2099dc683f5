// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockServer
import Foundation
import Glibc
import LinuxIO
import Logging
import TestSupport
import Testing
import WireProtocol

@testable import BlockServer

/// How much of a server one client can have, and how often it may guess.
@Suite(.blocking, .timeLimit(.minutes(60))) struct HTTPAccessLimitTests {
    private let scratch: ScratchDirectory
    private let image: SeededImage
    private static let tokens = (0..<2).map { "token-\($0)-of-enough-characters" }

    init() throws {
        scratch = try ScratchDirectory()
        image = try SeededImage(scratch, size: 1 << 20)
    }

    private func bearer(_ token: String) -> String { "Authorization: Bearer \(token)" }

    private func server(
        _ exports: String..., change: (inout BlockServer.Options) -> Void = { _ in }
    ) throws -> TestServer {
        try TestServer(exports.first ?? image.path) {
            $0.tokens = Self.tokens.enumerated().map {
                TokenEntry(name: "client\($0.offset)", token: $0.element)
            }
            change(&$0)
        }
    }

    @Test
    func `while an address waits the server looks at no other token from it, and logs one line`()
        throws
    {
        let server = try server { $0.firstWait = 25 }
        let known = try HTTPConnection(port: server.port)
        #expect(try known.ask("GET", "/v1", [bearer(Self.tokens[0])]).status == 200)
        let guess = try HTTPConnection(port: server.port)
        try guess.send(HTTPConnection.request("GET", "/v1", [bearer("x")]))
        #expect(becomesTrue { !server.log.all(with: "wrong token").isEmpty })
        for token in ["y", Self.tokens[0], Self.tokens[1]] {
            for _ in 0..<20 {
                let answer = try server.ask("GET", "/v1", [bearer(token)])
                #expect(answer.status == 429 && answer.problem == .unauthorized)
                #expect(answer.headers["retry-after"].flatMap { Int($0) } ?? 0 >= 1)
            }
        }
        // A connection whose token is known does not guess; with another token it would.
        #expect(try known.ask("GET", "/v1/devices", [bearer(Self.tokens[0])]).status == 200)
        #expect(try server.ask("GET", "/v1").status == 401)
        #expect(try known.ask("GET", "/v1", [bearer(Self.tokens[1])]).status == 429)
        #expect(server.log.all(with: "wrong token").count == 1)
        server.server.stop()
        #expect(server.log.all(with: "count=61").count == 1, "\(server.log.all)")
    }

    @Test func `one token cannot have all sessions`() throws {
        let server = try server { $0.maximumSessionsOfClient = 3 }
        func open(_ token: String) throws -> HTTPAnswer {
            try server.ask(
                "POST", Route.sessions(device: image.path).path, [Wire.json, bearer(token)],
                body: WireJSON.encode(Wire.sessionRequest(.read)))
        }
        let first = try (0..<3).map { _ in try open(Self.tokens[0]) }
        #expect(first.allSatisfy { $0.status == 201 })
        let answer = try open(Self.tokens[0])
        #expect(answer.status == 429 && answer.problem == .busy)
        #expect(answer.headers["retry-after"] == "1")
        let id = try first[0].decoded(as: SessionRecord.self).session
        #expect(
            try server.ask("DELETE", Route.session(id).path, [bearer(Self.tokens[0])]).status == 204
        )
        #expect(try open(Self.tokens[0]).status == 201)
    }

    @Test func `one address cannot have all sessions with several tokens, nor without a token`()
        throws
    {
        for tokens in [Self.tokens, []] {
            let server = try server {
                $0.maximumSessionsOfClient = 4
                if tokens.isEmpty { $0.tokens = nil }
            }
            let statuses = try (0..<6).map { index in
                let header = tokens.isEmpty ? [] : [bearer(tokens[index % 2])]
                return try server.ask(
                    "POST", Route.sessions(device: image.path).path, [Wire.json] + header,
                    body: WireJSON.encode(Wire.sessionRequest(.read))
                ).status
            }
            #expect(statuses == [201, 201, 201, 201, 429, 429])
        }
    }

    @Test func `one address cannot have all connections`() throws {
        let server = try server { $0.maximumConnectionsOfClient = 4 }
        let held = try (0..<4).map { _ in try HTTPConnection(port: server.port) }
        for connection in held { #expect(try connection.ask("GET", "/v1").status == 401) }
        let rejected = try HTTPConnection(port: server.port)
        try rejected.send(HTTPConnection.request("GET", "/v1"))
        #expect(try rejected.answer().status == 503)
        held[0].socket.interrupt()
        #expect(becomesTrue { (try? server.ask("GET", "/v1").status) == 401 })
    }

    @Test func `a token's connections are counted until they close`() {
        let connections = Connections(limitOfClient: 2)
        let handlers = (0..<3).map { _ in LogLines() }
        let ids = handlers.map { ObjectIdentifier($0) }
        #expect(connections.count(ids[0], for: "a") && connections.count(ids[1], for: "a"))
        #expect(connections.count(ids[1], for: "a"))
        #expect(!connections.count(ids[2], for: "a"))
        #expect(connections.count(ids[2], for: "b") && connections.count(ids[2], for: nil))
        #expect(connections.count(ids[1], for: "b") && connections.count(ids[2], for: "a"))
        withExtendedLifetime(handlers) {}
    }

    @Test func `the table of pdiffcopy's names is bounded`() throws {
        let server = try TestServer(scratch.path + "/:rw")
        let name = percentEncoded(image.path)
        for index in 0..<300 {
            // Many names of one image, and many of none.
            let dots = String(repeating: "/.", count: index)
            let alias = percentEncoded(scratch.path) + percentEncoded(dots) + "/a.img"
            let target = "/hashes?method=sha1&block_size=1048576&filename="
            #expect(try server.ask("GET", target + alias).status == 200)
            _ = try server.ask("GET", "/blocks?offset=0&size=1&filename=\(name)\(index)")
        }
        let families = server.server.service.families
        let count = try #require(
            families.lazy.compactMap { $0 as? PdiffcopyService }.first?.nameCount)
        #expect(count <= PdiffcopyService.limitOfClient && count > 1)
    }

    @Test func `max-size limits the bytes in an exported directory, whichever way a client writes`()
        throws
    {
        try must("mkdir", scratch.file("d"))
        _ = try SeededImage(scratch, "d/there", size: 1 << 20)
        var entry = TokenEntry(name: "a", token: Self.tokens[0])
        entry.maximumSize = 3 << 20
        let server = try TestServer(scratch.file("d/") + ":rw") { $0.tokens = [entry] }
        let header = bearer(Self.tokens[0])
        func write(_ name: String, _ size: Int) throws -> Int {
            let body = WireJSON.encode(Wire.sessionRequest(.write, size: size))
            let answer = try server.ask(
                "POST", Route.sessions(device: scratch.file("d/\(name)")).path,
                [Wire.json, header], body: body)
            if answer.status == 409 { #expect(answer.problem == .refused) }
            guard answer.status == 201 else { return answer.status }
            let id = try answer.decoded(as: SessionRecord.self).session
            #expect(try server.ask("DELETE", Route.session(id).path, [header]).status == 204)
            return 201
        }
        func resize(_ name: String, _ size: Int) throws -> Int {
            let path = percentEncoded(scratch.file("d/\(name)"))
            return try server.ask(
                "POST", "/resize?size=\(size)&filename=\(path)", [header], body: []
            )
            .status
        }
        #expect(try write("new", 3 << 20) == 409)
        #expect(try resize("new", 3 << 20) == 409)
        #expect(try write("there", 4 << 20) == 409)
        #expect(try write("huge", 1 << 62) == 409)
        #expect(!FileManager.default.fileExists(atPath: scratch.file("d/new")))
        #expect(try write("new", 1 << 20) == 201)
        #expect(try write("new", 2 << 20) == 201)
        #expect(try write("third", 4096) == 409)
        #expect(try write("there", 1 << 20) == 201)
        #expect(try resize("there", (1 << 20) + 4096) == 409)
        #expect(try resize("there", 1 << 19) == 200)
        #expect(try resize("there", (1 << 20) + 4096) == 409)
        #expect(try resize("there", 1 << 20) == 200)
    }

    @Test func `an opening that waits for a lock keeps its room and delays no other client`() throws
    {
        // The gate gives up after ten seconds, in which this test may stall.
        let holds = try holdsUndisturbed {
            let name = UUID().uuidString
            return try keepsRoom(in: scratch.directory(name, ofImages: 1, size: 1 << 20))
        }
        #expect(holds)
    }

    private func keepsRoom(in directory: String) throws -> Bool {
        let server = try server(directory + "/:rw") {
            for index in Self.tokens.indices { $0.tokens?[index].maximumSize = 4 << 20 }
        }
        let locked = "\(directory)/0.img"
        let holder = try OwnedDescriptor.open(locked, flags: O_RDWR)
        #expect(flock(holder.rawValue, LOCK_EX) == 0)
        let waiting = try HTTPConnection(port: server.port)
        try waiting.send(
            HTTPConnection.request(
                "POST", Route.sessions(device: locked).path, [Wire.json, bearer(Self.tokens[0])],
                body: WireJSON.encode(Wire.sessionRequest(.write, size: 3 << 20))))
        let header = bearer(Self.tokens[1])
        func open(_ mode: SessionRequest.Mode, _ size: Int) throws -> Int {
            let answer = try server.ask(
                "POST", Route.sessions(device: "\(directory)/new").path, [Wire.json, header],
                body: WireJSON.encode(Wire.sessionRequest(mode, size: size)))
            guard answer.status == 201 else { return answer.status }
            let id = try answer.decoded(as: SessionRecord.self).session
            #expect(try server.ask("DELETE", Route.session(id).path, [header]).status == 204)
            return 201
        }
        let isFull = try becomesTrue(within: 9) { try open(.dryRun, 2 << 20) == 409 }
        let statuses = try [open(.write, 2 << 20), open(.write, 1 << 20)]
        #expect(flock(holder.rawValue, LOCK_UN) == 0)
        let status = try waiting.answer().status
        print("full: \(isFull), then \(statuses) and \(status)")
        // All other answers came while it waited.
        return isFull && statuses == [409, 201] && status == 201
    }

    @Test func `a request that began before an image was cut does not get the image's old room`()
        throws
    {
        let directory = try scratch.directory("d", ofImages: 1, size: 1 << 20)
        let server = try server(directory + "/:rw") {
            $0.threads = 16
            for index in Self.tokens.indices { $0.tokens?[index].maximumSize = 8 << 20 }
        }
        func resize(_ size: Int) -> [UInt8] {
            let path = "/resize?size=\(size)&filename=" + percentEncoded("\(directory)/x.img")
            return HTTPConnection.request("POST", path, [bearer(Self.tokens[0])], body: [])
        }
        let connections = try (0..<3).map { _ in try HTTPConnection(port: server.port) }
        try connections[0].send(resize(4 << 20))
        #expect(try connections[0].answer().status == 200)
        let locked = "\(directory)/0.img"
        let holder = try OwnedDescriptor.open(locked, flags: O_RDWR)
        #expect(flock(holder.rawValue, LOCK_EX) == 0)
        try connections[1].send(
            HTTPConnection.request(
                "POST", Route.sessions(device: locked).path, [Wire.json, bearer(Self.tokens[1])],
                body: WireJSON.encode(Wire.sessionRequest(.write, size: 1 << 20))))
        // If requests of a server wait for that one, it has read the image by the next pause.
        usleep(500_000)
        try connections[2].send(resize((4 << 20) + 4096))
        usleep(500_000)
        // Created before the cut, so that a request that comes late is refused as well.
        _ = try scratch.sparseFile("d/y.img", size: 5 << 20)
        try connections[0].send(resize(1 << 20))
        #expect(try connections[0].answer().status == 200)
        #expect(flock(holder.rawValue, LOCK_UN) == 0)
        #expect(try [200, 409].contains(connections[2].answer().status))
        #expect(try connections[1].answer().status == 201)
        let size = try FileStatus(path: "\(directory)/x.img").size
        #expect(size == 1 << 20, "the other images have 6 MiB, and the limit is 8 MiB")
    }

    @Test func `max-size counts every file in whole blocks of 4096 bytes`() throws {
        try must("mkdir", scratch.file("d"))
        var entry = TokenEntry(name: "a", token: Self.tokens[0])
        entry.maximumSize = 3 * 4096
        let server = try TestServer(scratch.file("d/") + ":rw") { $0.tokens = [entry] }
        func create(_ name: String, _ size: Int) throws -> Int {
            try server.ask(
                "POST", Route.sessions(device: scratch.file("d/\(name)")).path,
                [Wire.json, bearer(Self.tokens[0])],
                body: WireJSON.encode(Wire.sessionRequest(.write, size: size))
            ).status
        }
        #expect(try create("byte", 1) == 201)
        #expect(try create("large", 8193) == 409)
        #expect(try create("two-blocks", 4097) == 201)
        #expect(try create("other-byte", 1) == 409)
    }

    @Test(
        arguments: [
            (["d/", "d/a.img"], "d/a.img"), (["d/a.img", "d/"], "d/a.img"),
            (["d/", "d/sub/"], "d/sub/b.img"), (["d/sub/", "d/"], "d/sub/b.img"),
            (["d/", "d/sub/"], "d/sub/new"), (["d/", "d/new"], "d/new"),
            (["d/", "link/a.img"], "link/a.img"), (["d/", "link/sub/"], "link/sub/b.img"),
            (["d/", "link/new"], "link/new"),
        ] as [([String], String)])
    func `max-size counts for every exported directory that an image is in`(
        names: [String], target: String
    ) throws {
        try must("mkdir", "-p", scratch.file("d/sub"))
        try must("ln", "-s", "d", scratch.file("link"))
        _ = try SeededImage(scratch, "d/a.img", size: 1 << 20)
        _ = try SeededImage(scratch, "d/sub/b.img", size: 1 << 20)
        var entry = TokenEntry(name: "a", token: Self.tokens[0])
        entry.maximumSize = 3 << 20
        let exports = try names.map { try ExportSelector(scratch.file($0) + ":rw") }
        let server = try TestServer {
            $0.exports = exports
            $0.createsImages = true
            $0.tokens = [entry]
        }
        let (path, header) = (scratch.file(target), bearer(Self.tokens[0]))
        func open(_ size: Int) throws -> Int {
            try server.ask(
                "POST", Route.sessions(device: path).path, [Wire.json, header],
                body: WireJSON.encode(Wire.sessionRequest(.write, size: size))
            ).status
        }
        let room = target.hasSuffix("new") ? 1 << 20 : 2 << 20
        #expect(try open(room + 4096) == 409)
        let resize = "/resize?size=\(room + 4096)&filename=\(percentEncoded(path))"
        #expect(try server.ask("POST", resize, [header], body: []).status == 409)
        #expect(try open(room) == 201)
    }

    @Test func `an append-only token takes no snapshots that push out older snapshots`() throws {
        var entry = TokenEntry(name: "a", token: Self.tokens[0])
        entry.isAppendOnly = true
        let server = try TestServer(image.path + ":rw") { $0.tokens = [entry] }
        var request = Wire.sessionRequest(.write, size: 1 << 20)
        func status() throws -> Int {
            try server.ask(
                "POST", Route.sessions(device: image.path).path,
                [Wire.json, bearer(Self.tokens[0])], body: WireJSON.encode(request)
            ).status
        }
        request.shrink = true
        #expect(try status() == 403)
        request.shrink = nil
        request.snapshot = "monday"
        request.keep = 3
        #expect(try status() == 403)
    }
}
