// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockServer
import Foundation
import TestSupport
import Testing
import WireProtocol

/// Requests of pdiffcopy's protocol, one by one, and the real server beside ours.
@Suite(.blocking, .timeLimit(.minutes(60))) struct HTTPPdiffcopyTests {
    private static let size = (3 << 20) + 1234
    private let scratch: ScratchDirectory
    private let image: SeededImage
    private let server: TestServer

    init() throws {
        scratch = try ScratchDirectory()
        try must("mkdir", scratch.file("images"))
        image = try SeededImage(scratch, "images/a", size: Self.size)
        server = try TestServer(scratch.file("images/") + ":rw")
    }

    /// The target of a request about a file.
    private func target(_ endpoint: String, _ path: String, _ query: String = "") -> String {
        "/\(endpoint)?filename=\(percentEncoded(path))" + (query.isEmpty ? "" : "&\(query)")
    }

    private func content(_ name: String) throws -> [UInt8] {
        try [UInt8](contentsOf: scratch.file(name))
    }

    @Test func `answers to a reader are those of pdiffcopy, byte for byte`() throws {
        let real = try Pdiffcopy.Server()
        let empty = try scratch.sparseFile("images/empty", size: 0)
        let targets = [
            target("info", image.path), target("info", empty),
            target("info", scratch.file("images/missing")),
            target("blocks", image.path, "offset=0&size=4096"),
            target("blocks", image.path, "offset=1&size=1"),
            target("blocks", image.path, "offset=511&size=1048577"),
            target("blocks", image.path, "offset=3145728&size=1048576"),
            target("blocks", image.path, "offset=\(Self.size)&size=1"),
            target("blocks", image.path, "offset=\(Self.size + 5)&size=1"),
            target("blocks", image.path, "offset=7&size=0"),
            target("blocks", image.path, "offset=0&size=67108864"),
            target("blocks", empty, "offset=0&size=9"),
        ]
        for target in targets {
            let ours = try server.ask("GET", target)
            let theirs = try HTTPConnection(port: real.port).ask("GET", target)
            #expect(ours.status == theirs.status, "\(target)")
            guard theirs.status == 200 else { continue }
            #expect(ours.body == theirs.body, "\(target)")
            #expect(ours.headers["content-type"] == theirs.headers["content-type"], "\(target)")
        }
        for query in ["", "block_size=4096", "block_size=1000", "block_size=3145729"] {
            for path in [image.path, empty] {
                for method in ["sha1", "md5", "sha256", "blake2b"] {
                    let target = target("hashes", path, "\(query)&method=\(method)&concurrency=2")
                    let ours = try server.ask("GET", target)
                    let theirs = try HTTPConnection(port: real.port).ask("GET", target)
                    #expect(ours.status == 200 && theirs.status == 200)
                    #expect(ours.headers["content-type"] == theirs.headers["content-type"])
                    // Its processes do not keep an order.
                    func lines(_ answer: HTTPAnswer) -> [Substring] {
                        answer.text.split(separator: "\n").sorted()
                    }
                    #expect(lines(ours) == lines(theirs), "\(target)")
                    #expect(ours.body.isEmpty || ours.body.last == UInt8(ascii: "\n"))
                }
            }
        }
    }

    @Test(arguments: [1, 2, 7, 511, 512, 1000, 4096, 99_999, 1 << 20, (1 << 20) + 1, 64 << 20])
    func `HEAD gives the length of the digests`(block: Int) throws {
        let small = try SeededImage(scratch, "images/small", size: 23_457)
        for path in [small.path, image.path] where path != image.path || block >= 511 {
            let target = target("hashes", path, "block_size=\(block)&method=sha1")
            let head = try server.ask("HEAD", target)
            let answer = try server.ask("GET", target)
            #expect(head.status == 200 && head.body.isEmpty)
            #expect(head.headers["content-length"] == "\(answer.body.count)")
            #expect(answer.headers["transfer-encoding"] == "chunked")
            let offsets = answer.text.split(separator: "\n").map { $0.prefix { $0 != "\t" } }
            let size = path == image.path ? Self.size : 23_457
            #expect(offsets == stride(from: 0, to: size, by: block).map { Substring("\($0)") })
        }
    }

    @Test func `HTTP 1.0 gets a length instead of chunks`() throws {
        let connection = try HTTPConnection(port: server.port)
        try connection.send("GET \(target("hashes", image.path, "method=md5")) HTTP/1.0\r\n\r\n")
        let answer = try connection.answer()
        #expect(answer.status == 200 && answer.headers["transfer-encoding"] == nil)
        #expect(answer.headers["content-length"] == "\(answer.body.count)")
        let other = try server.ask("GET", target("hashes", image.path, "method=md5"))
        #expect(answer.body == other.body && other.headers["content-length"] == nil)
    }

    @Test func `every digest method of hashlib and libcrypto is available`() throws {
        let script = """
            import hashlib, sys
            data = open(sys.argv[1], "rb").read()
            for name in sorted(hashlib.algorithms_available):
                try: print(name, hashlib.new(name, data).hexdigest())
                except (TypeError, ValueError): pass
            """
        let python = URL(fileURLWithPath: Pdiffcopy.program).deletingLastPathComponent().path
        let lines = try must("\(python)/python", "-c", script, image.path).split(separator: "\n")
        #expect(lines.count > 10)
        for line in lines {
            let parts = line.split(separator: " ").map(String.init)
            let target = target("hashes", image.path, "block_size=16777216&method=\(parts[0])")
            let answer = try server.ask("GET", target)
            #expect(answer.text == "0\t\(parts[1])\n", "\(parts[0])")
        }
    }

    @Test(arguments: [
        ("POST", 0, 4096), ("POST", 4096, 1 << 20), ("POST", 1, 1), ("POST", 511, 2),
        ("POST", 1000, 1000), ("POST", 4095, 1_048_579), ("POST", size - 1, 1),
        ("POST", size - 2000, 2000), ("POST", 0, size), ("POST", 3, size - 5), ("POST", size, 0),
    ])
    func `a write changes its range and nothing beside it`(method: String, offset: Int, count: Int)
        throws
    {
        var random = SeededGenerator(seed: UInt64(count))
        for data in [random.bytes(count), [UInt8](repeating: 0, count: count)] {
            let answer = try server.ask(
                method, target("blocks", image.path, "offset=\(offset)"), body: data)
            #expect(answer.status == 200 && answer.body.isEmpty)
            #expect(answer.headers["content-type"] == "text/html; charset=utf-8")
            var expected = image.bytes
            expected.replaceSubrange(offset..<offset + count, with: data)
            #expect(try content("images/a") == expected)
        }
    }

    @Test func `neighbours that share sectors may be written at once`() async throws {
        let length = 777
        let port = server.port
        try await withThrowingTaskGroup(of: Void.self) { group in
            for worker in 0..<4 {
                group.addTask {
                    for index in stride(from: worker, to: 200, by: 4) {
                        let offset = index * length
                        let answer = try HTTPConnection(port: port).ask(
                            "POST", target("blocks", image.path, "offset=\(offset)"),
                            body: [UInt8](repeating: UInt8(index), count: length))
                        #expect(answer.status == 200)
                    }
                }
            }
            try await group.waitForAll()
        }
        #expect(server.log.all(with: "session begins").count == 1)
        let bytes = try content("images/a")
        for index in 0..<200 {
            #expect(bytes[(index * length)..<((index + 1) * length)].allSatisfy { $0 == index })
        }
        #expect(bytes[(200 * length)...] == image.bytes[(200 * length)...])
    }

    @Test func `a block of 64 MiB is taken in one request, and a larger block is refused`() throws {
        let large = try scratch.sparseFile("images/large", size: 65 << 20)
        let free = server.server.freeMemory
        var data = [UInt8](repeating: 3, count: 64 << 20)
        data[5] = 4
        let answer = try server.ask("POST", target("blocks", large, "offset=4096"), body: data)
        #expect(answer.status == 200)
        #expect(try content("images/large")[4096..<(4096 + 64 << 20)].elementsEqual(data))
        let connection = try HTTPConnection(port: server.port)
        try connection.send(
            "POST \(target("blocks", large, "offset=0")) HTTP/1.1\r\nHost: localhost\r\n"
                + "Content-Length: \((64 << 20) + 1)\r\n\r\n")
        let refusal = try connection.answer()
        #expect(refusal.status == 413 && refusal.reason.contains("a body may have 67108864 bytes"))
        #expect(becomesTrue { server.server.freeMemory == free })
    }

    @Test func `an image gets its size at once: larger, smaller and new`() throws {
        for size in [Self.size + 512, Self.size + (1 << 20), 4096, 1000, 1, 1001] {
            let answer = try server.ask("POST", target("resize", image.path, "size=\(size)"))
            #expect(answer.status == 200 && answer.body.isEmpty)
            #expect(try content("images/a").count == size)
        }
        for name in ["images/new", "images/other:overwrite"] {
            let path = scratch.file(name)
            #expect(try server.ask("GET", target("info", path)).status == 404)
            #expect(try server.ask("POST", target("resize", path, "size=5000")).status == 200)
            let info = try server.ask("GET", target("info", path))
            #expect(info.text == "{\"size\":5000}\n")
        }
        let names = try FileManager.default.contentsOfDirectory(atPath: scratch.file("images"))
        #expect(names.sorted() == ["a", "new", "other"])
        #expect(try content("images/other") == [UInt8](repeating: 0, count: 5000))
    }
}
