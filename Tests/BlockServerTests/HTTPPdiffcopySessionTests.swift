// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockServer
import Foundation
import TestSupport
import Testing
import WireProtocol

/// What pdiffcopy's requests are refused, and whom they keep out.
@Suite(.blocking, .timeLimit(.minutes(60))) struct HTTPPdiffcopySessionTests {
    private static let size = 1 << 20
    /// As pdiffcopy's client calls itself.
    private static let agent = ["User-Agent: python-requests/2.32.5"]
    private let scratch: ScratchDirectory
    private let image: SeededImage
    private let readOnly: SeededImage
    private let server: TestServer

    init() throws {
        scratch = try ScratchDirectory()
        try must("mkdir", scratch.file("images"))
        image = try SeededImage(scratch, "images/a", size: Self.size)
        readOnly = try SeededImage(scratch, "ro", size: Self.size, seed: 2)
        server = try TestServer(scratch.file("images/") + ":rw", readOnly.path)
    }

    private func ask(
        _ method: String, _ endpoint: String, _ path: String, _ query: String = "",
        headers: [String] = [], body: [UInt8]? = nil, on other: TestServer? = nil
    ) throws -> HTTPAnswer {
        let target = "/\(endpoint)?filename=\(percentEncoded(path))&\(query)"
        return try (other ?? server).ask(method, target, headers, body: body)
    }

    private func write(_ path: String, headers: [String] = []) throws -> HTTPAnswer {
        try ask("POST", "blocks", path, "offset=0", headers: headers, body: [1, 2, 3])
    }

    private func hashes(_ path: String, headers: [String] = []) throws -> HTTPAnswer {
        try ask("GET", "hashes", path, "method=sha1", headers: headers)
    }

    @Test(arguments: [
        ("GET", "/info"), ("GET", "/info?filename="), ("GET", "/info?filename=a"),
        ("GET", "/info?filename=/%zz"), ("GET", "/hashes?filename=FILE"),
        ("GET", "/hashes?filename=FILE&method="), ("GET", "/hashes?filename=FILE&method=sha0"),
        ("GET", "/hashes?filename=FILE&method=poly1305"),
        ("GET", "/hashes?filename=FILE&method=gmac"),
        ("GET", "/hashes?filename=FILE&method=shake_128"),
        ("GET", "/hashes?filename=FILE&method=%0d%0aX:%20y"),
        ("GET", "/hashes?filename=FILE&method=sha1&block_size=0"),
        ("GET", "/hashes?filename=FILE&method=sha1&block_size=67108865"),
        ("GET", "/hashes?filename=FILE&method=sha1&block_size=4K"),
        ("GET", "/blocks?filename=FILE"), ("GET", "/blocks?filename=FILE&offset=0"),
        ("GET", "/blocks?filename=FILE&offset=0&size=-1"),
        ("GET", "/blocks?filename=FILE&offset=-1&size=1"), ("POST", "/blocks?filename=FILE"),
        ("POST", "/blocks?filename=FILE&offset=9223372036854775808"),
        ("POST", "/resize?filename=FILE"), ("POST", "/resize?filename=FILE&size=x"),
        ("POST", "/resize?filename=FILE&size=9223372036854775807"),
    ])
    func `a malformed request is answered with 400, and with the reason where pdiffcopy shows it`(
        method: String, target: String
    ) throws {
        let target = target.replacing("FILE", with: percentEncoded(image.path))
        let answer = try server.ask(method, target)
        #expect(answer.status == 400, "\(target)")
        let problem = try answer.decoded(as: Problem.self)
        #expect(answer.reason.contains(problem.detail) && answer.headers["x"] == nil)
        #expect(try [UInt8](contentsOf: image.path) == image.bytes)
        #expect(server.server.sessionCount <= 1)
    }

    @Test func `methods that pdiffcopy does not have are answered with 405`() throws {
        for (method, endpoint, allowed) in [
            ("POST", "info", "GET, HEAD"), ("DELETE", "hashes", "GET, HEAD"),
            ("HEAD", "blocks", "GET, POST"), ("PUT", "blocks", "GET, POST"),
            ("GET", "resize", "POST"),
        ] {
            let answer = try ask(method, endpoint, image.path, "offset=0&size=1")
            #expect(answer.status == 405 && answer.headers["allow"] == allowed)
        }
    }

    @Test(arguments: [
        "/etc/passwd", "/", "/dev/null", "DIR/../ro", "DIR/..", "DIR", "DIR/missing", "DIR/a/b",
        "/proc/self/mem", "/UUID=1234", "DIR/missing:overwrite",
    ])
    func `only exports can be reached, and only a resize creates an image`(name: String) throws {
        let path = name.replacing("DIR", with: scratch.file("images"))
        for answer in [
            try ask("GET", "info", path), try hashes(path), try write(path),
            try ask("GET", "blocks", path, "offset=0&size=1"),
        ] {
            #expect(answer.status == 404 && answer.problem == .notFound)
            #expect(answer.reason.contains("the server exports no such device"))
        }
        if !name.contains("missing") {
            #expect(try ask("POST", "resize", path, "size=5").status == 404)
        }
        let names = try FileManager.default.contentsOfDirectory(atPath: scratch.file("images"))
        #expect(names == ["a"])
    }

    @Test func `no image is cut to 0 bytes, written beyond its end, or written if it is read-only`()
        throws
    {
        let zero = try ask("POST", "resize", image.path, "size=0")
        #expect(zero.status == 409 && zero.problem == .refused)
        for (offset, count) in [
            (Self.size, 1), (Self.size - 1, 2), (Int.max, 1), (0, Self.size + 1),
        ] {
            let answer = try ask(
                "POST", "blocks", image.path, "offset=\(offset)",
                body: [UInt8](repeating: 1, count: count))
            #expect(answer.status == 409 && answer.reason.contains("beyond"))
        }
        #expect(try [UInt8](contentsOf: image.path) == image.bytes)
        for answer in [
            try write(readOnly.path), try ask("POST", "resize", readOnly.path, "size=5"),
        ] {
            #expect(answer.status == 403 && answer.problem == .access)
            #expect(answer.reason.contains("exports it read-only"))
        }
        #expect(try hashes(readOnly.path).status == 200)
        #expect(try [UInt8](contentsOf: readOnly.path) == readOnly.bytes)
    }

    @Test func `content of a target is overwritten only if the file name says so`() throws {
        let path = try scratch.sparseFile("images/ext4", size: 4 << 20)
        try must("mkfs.ext4", "-q", "-L", "précieux", path)
        let before = try [UInt8](contentsOf: path)
        for answer in [try write(path), try ask("POST", "resize", path, "size=4194304")] {
            #expect(answer.status == 409 && answer.problem == .refused)
            #expect(
                answer.reason.contains("it holds ext4")
                    && answer.reason.hasSuffix(
                        "If that may be lost, end the file name with :overwrite."),
                "\(answer.reason)")
            #expect(answer.reason.utf8.allSatisfy { (0x20..<0x7F).contains($0) })
        }
        #expect(try [UInt8](contentsOf: path) == before)
        #expect(try ask("GET", "info", path + ":overwrite").text == "{\"size\":4194304}\n")
        #expect(try write(path + ":overwrite").status == 200)
        #expect(try [UInt8](contentsOf: path, count: 3) == [1, 2, 3])
        // Under either name it is read by the session that writes.
        for name in [path, path + ":overwrite"] { #expect(try hashes(name).status == 200) }
        #expect(server.server.sessionCount == 1)
        // An image of just that name comes first.
        let literal = try scratch.sparseFile("images/b:overwrite", size: 4096)
        let other = try scratch.sparseFile("images/b", size: 8192)
        #expect(try ask("GET", "info", literal).text == "{\"size\":4096}\n")
        #expect(try write(literal).status == 200)
        #expect(try [UInt8](contentsOf: other).allSatisfy { $0 == 0 })
    }

    @Test func `a writer locks all others out, a reader locks writers out, and silence ends both`()
        throws
    {
        let tokens = ["one", "two"].map {
            TokenEntry(name: $0, token: "token-\($0)-of-enough-characters")
        }
        let server = try TestServer(scratch.file("images/") + ":rw") {
            $0.tokens = tokens
            // So long that nothing of what comes between two requests ends a session.
            $0.sessionTimeout = 10
        }
        let (one, two) = (
            ["Authorization: Bearer \(tokens[0].token ?? "")"],
            ["Authorization: Bearer \(tokens[1].token ?? "")"]
        )
        func status(
            _ method: String, _ query: String, _ headers: [String], body: [UInt8]? = nil
        ) throws -> Int {
            let endpoint = method == "POST" ? "blocks" : "hashes"
            let answer = try ask(
                method, endpoint, image.path, query, headers: headers, body: body, on: server)
            if answer.status == 423 { #expect(answer.reason.contains("a client at 127.0.0.1")) }
            return answer.status
        }
        func read(_ who: [String]) throws -> Int { try status("GET", "method=sha1", who) }
        func write(_ who: [String]) throws -> Int { try status("POST", "offset=5", who, body: [9]) }
        #expect(try [read(one), read(two)] == [200, 200])
        #expect(try write(one) == 423, "the other one reads")
        #expect(try becomesTrue(within: 60) { try write(one) == 200 })
        #expect(try [write(one), read(one)] == [200, 200])
        #expect(try [read(two), write(two)] == [423, 423])
        #expect(try server.ask("GET", "/info?filename=\(image.path)", two).status == 200)
        let session = try ask(
            "GET", "blocks", image.path, "offset=0&size=1", headers: two, on: server)
        #expect(session.status == 423)
        #expect(try becomesTrue(within: 60) { try write(two) == 200 })
        #expect(try write(one) == 423)
        #expect(becomesTrue(within: 60) { server.server.sessionCount == 0 })
        #expect(server.log.all(with: "end=silent").count >= 2)
    }

    @Test func `blkferry's clients and pdiffcopy's lock each other out`() throws {
        let session = try server.session(image.path, .write, size: Self.size)
        for answer in [try hashes(image.path), try write(image.path)] {
            #expect(answer.status == 423 && answer.problem == .locked)
        }
        #expect(try server.commit(session.session).status == 204)
        #expect(try write(image.path).status == 200)
        #expect(try server.open(image.path, .write, size: Self.size).status == 423)
        #expect(try server.open(image.path, .read).status == 423)
    }

    @Test func `a client that goes from reading to writing does not lock itself out`() throws {
        for _ in 0..<50 {
            let other = try SeededImage(scratch, "images/b", size: 70_000)
            #expect(try hashes(other.path).body.count > 0)
            #expect(try ask("GET", "blocks", other.path, "offset=0&size=70000").status == 200)
            #expect(try write(other.path).status == 200)
            try must("rm", other.path)
        }
    }

    @Test func `the server does not wait for a client that goes away in the middle of an answer`()
        throws
    {
        let large = try scratch.sparseFile("images/large", size: 64 << 20)
        do {
            let connection = try HTTPConnection(port: server.port)
            try connection.send(
                "GET /hashes?filename=\(large)&method=sha1&block_size=64 HTTP/1.1\r\nHost: localhost\r\n\r\n"
            )
            #expect(try connection.socket.receive().isEmpty == false)
        }
        #expect(try becomesTrue { try write(large).status == 200 })
    }

    @Test func `pdiffcopy's client gets the refusal before it writes`() throws {
        // Size, then digests: a client that is going to write asks in this order.
        func pushes(_ path: String) throws -> HTTPAnswer {
            #expect(try ask("GET", "info", path, headers: Self.agent).status == 200)
            return try hashes(path, headers: Self.agent)
        }
        #expect(try pushes(readOnly.path).status == 403)
        // Each time anew.
        #expect(try hashes(readOnly.path, headers: Self.agent).status == 200)
        let answer = try pushes(image.path)
        let again = try hashes(image.path)
        #expect(answer.status == 200 && answer.body == again.body)
        #expect(server.log.all(with: "mode=write").count == 1)
    }

    @Test func `a client that only reads is not taken for a writer`() throws {
        // Digests, then the size; twice, as a dry run and then the real one.
        for _ in 0..<2 {
            #expect(try hashes(readOnly.path, headers: Self.agent).status == 200)
            #expect(try ask("GET", "info", readOnly.path, headers: Self.agent).status == 200)
        }
        // A whole file.
        let query = "offset=0&size=100"
        #expect(
            try ask("GET", "blocks", readOnly.path, query, headers: Self.agent).status == 200)
        #expect(try hashes(readOnly.path, headers: Self.agent).status == 200)
        // Another client than pdiffcopy's.
        #expect(try ask("GET", "info", readOnly.path).status == 200)
        #expect(try hashes(readOnly.path).status == 200)
        #expect(server.log.all(with: "mode=write").isEmpty)
    }

    @Test func `names that are equal as Unicode text are different names`() throws {
        let composed = scratch.file("images/\u{e9}")
        let decomposed = scratch.file("images/e\u{301}")
        for (path, size) in [(composed, 4096), (decomposed, 8192)] {
            #expect(try ask("POST", "resize", path, "size=\(size)").status == 200)
            #expect(try ask("GET", "info", path).text == "{\"size\":\(size)}\n")
        }
        #expect(try ask("POST", "blocks", composed, "offset=0", body: [1]).status == 200)
        #expect(try [UInt8](contentsOf: decomposed).allSatisfy { $0 == 0 })
    }
}
