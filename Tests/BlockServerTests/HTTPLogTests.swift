// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import DeviceProbe
import Foundation
import Logging
import TestSupport
import Testing
import WireProtocol

@testable import BlockServer

/// What clients can have the server write to its log.
@Suite(.blocking, .timeLimit(.minutes(60))) struct HTTPLogTests {
    private let scratch: ScratchDirectory
    private static let token = "a-token-of-enough-characters"
    private static let nasty = "a\nforged\u{1B}[2J\u{9B}31m\u{202E}\u{2028} peer=x \"q\""

    init() throws {
        scratch = try ScratchDirectory()
        try must("mkdir", scratch.file("images"))
    }

    private func isClean(_ line: String) -> Bool { !line.unicodeScalars.contains(where: isControl) }

    @Test func `no name from a client adds a line or a control character to the log`() throws {
        let image = try SeededImage(scratch, "images/\(Self.nasty)", size: 1 << 20)
        let server = try TestServer(scratch.file("images/") + ":rw")
        let session = try server.session(image.path, .write, size: 1 << 20)
        #expect(try server.commit(session.session).status == 204)
        #expect(try server.ask("GET", "/v1/devices/%0A%1b%5bx").status == 404)
        let lines = server.log.all
        #expect(lines.contains { $0.hasPrefix("session begins") })
        for line in lines {
            #expect(isClean(line), "\(line.debugDescription)")
        }
        let begins = try #require(lines.first { $0.hasPrefix("session begins") })
        #expect(begins.contains("a\\nforged\\u{1b}[2J\\u{9b}31m\\u{202e}\\u{2028} peer=x \\\"q"))
        #expect(begins.contains("device=\""))
    }

    @Test(arguments: ["a\nb", "\u{1B}[2J", "a\u{7F}", "\u{85}", "\u{202E}gpj.a", "x\u{2066}"])
    func `a new image gets no name with control characters, an existing image can be used`(
        name: String
    ) throws {
        let server = try TestServer(scratch.file("images/") + ":rw")
        let path = scratch.file("images/\(name)")
        let answer = try server.open(path, .write, size: 1 << 20)
        #expect(answer.status == 409 && answer.problem == .refused)
        #expect(answer.text.contains("Give it a name without them."), "\(answer.text)")
        let resize = "/resize?size=4096&filename=\(percentEncoded(path))"
        #expect(try server.ask("POST", resize, body: []).status == 409)
        #expect(
            try FileManager.default.contentsOfDirectory(atPath: scratch.file("images")).isEmpty)
        _ = try SeededImage(scratch, "images/\(name)", size: 1 << 20)
        #expect(try server.open(path, .read).status == 201)
    }

    @Test func `refusals and wrong tokens are logged with their client, once and then counted`()
        throws
    {
        let image = try SeededImage(scratch, "ro", size: 1 << 20)
        let server = try TestServer(image.path) {
            $0.tokens = [TokenEntry(name: "laptop", token: Self.token)]
            $0.logInterval = 3600
        }
        let bearer = "Authorization: Bearer \(Self.token)"
        let body = WireJSON.encode(Wire.sessionRequest(.write, size: 1 << 20))
        // Every client asks this before it shows its token.
        #expect(try server.ask("GET", "/v1").status == 401)
        #expect(server.log.all(with: "refused").isEmpty)
        for _ in 0..<50 {
            let answer = try server.ask(
                "POST", Route.sessions(device: image.path).path, [Wire.json, bearer], body: body)
            #expect(answer.status == 403)
            #expect(try server.ask("GET", "/v1/devices").status == 401)
            #expect(try server.ask("GET", "/v1/devices/%2Fx", [bearer]).status == 404)
            #expect(try server.ask("GET", Route.content(image.path).path, [bearer]).status == 200)
        }
        for status in ["403", "401", "404"] {
            let lines = server.log.all(with: "refused").filter { $0.contains("status=\(status)") }
            #expect(lines.count == 1, "\(status): \(lines)")
        }
        #expect(
            server.log.all(with: "client=laptop").filter { $0.contains("status=403") }.count == 1)
        #expect(server.log.all(with: "download").count == 1)
        server.server.stop()
        #expect(server.log.all(with: "count=49").count == 4, "\(server.log.all)")
        #expect(server.log.all.allSatisfy { !$0.contains(Self.token) })
    }

    @Test func `of many sessions of one client the first are logged, the others are counted`()
        throws
    {
        let name = String(repeating: "n", count: 250)
        let image = try SeededImage(scratch, "images/\(name)", size: 1 << 20)
        let server = try TestServer(image.path) { $0.logInterval = 3600 }
        for index in 1...40 {
            let session = try server.session(image.path, .read)
            #expect(try server.commit(session.session).status == 204)
            if index == 20 {
                #expect(server.log.all(with: "session begins").count == 20)
                #expect(server.log.all(with: "session ends").count == 20)
            }
        }
        #expect(server.log.all(with: "session begins").count == 32)
        #expect(server.log.all(with: "session ends").count == 32)
        #expect(server.log.all.allSatisfy { !$0.contains(name) })
        server.server.stop()
        #expect(server.log.all(with: "count=8").count == 2, "\(server.log.all)")
    }

    @Test func `a client's first events of each minute are logged`() {
        let lines = LogLines()
        let log = BoundedLog(Logger(label: "t") { _ in LineHandler(lines: lines) })
        let start = ContinuousClock.now
        func add(_ count: Int, at seconds: Int) {
            for _ in 0..<count {
                log.note(
                    "session begins", .info, from: "10.0.0.1", client: "a", burst: 4, [:],
                    now: start + .seconds(seconds))
            }
        }
        add(4, at: 0)
        add(4, at: 61)
        #expect(lines.all.count == 8)
        #expect(lines.all(with: "count=").isEmpty)
        add(1000, at: 62)
        #expect(lines.all.count == 8)
        log.flush(now: start + .seconds(122))
        #expect(lines.all(with: "count=1000").count == 1)
        add(1000, at: 123)
        #expect(lines.all.count == 12)
    }

    @Test func `the log gets a limited number of lines a minute from any number of addresses`() {
        let lines = LogLines()
        let log = BoundedLog(Logger(label: "t") { _ in LineHandler(lines: lines) })
        let start = ContinuousClock.now
        for index in 0..<10_000 {
            log.note(
                "refused", .warning, from: "10.0.\(index / 250).\(index % 250)", client: nil,
                status: 403, [:], now: start)
        }
        #expect(lines.all.count <= 66)
        log.flush(now: start + .seconds(61))
        #expect(lines.all.count <= 67)
        #expect(lines.all(with: "count=").count == 1)
        log.flush(now: start + .seconds(200))
        #expect(lines.all.count <= 67)
    }
}
