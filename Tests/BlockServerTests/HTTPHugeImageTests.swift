// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import BlockServer
import Foundation
import SystemPackage
import TestSupport
import Testing
import WireProtocol

/// Images of an EiB and more, and requests for such offsets: the server answers and keeps running.
@Suite(.blocking, .enabled(if: isRoot), .timeLimit(.minutes(60))) struct HTTPHugeImageTests {
    /// The largest size that is served, a little more, and the most that a file system gives.
    private static let sizes = [1 << 60, (1 << 60) + 4096, Int.max / 4096 * 4096]

    /// Numbers at which sums, products and conversions overflow.
    private static let numbers: [UInt64] = [
        0, 1 << 31, 1 << 32, 1 << 59, 1 << 60 - 4096, 1 << 60 - 1, 1 << 60, 1 << 60 + 1, 1 << 61,
        1 << 62, 1 << 63 - 4096, 1 << 63 - 1, 1 << 63, .max - 4095, .max,
    ]

    private let files: TemporaryFileSystem
    private let image: String

    init() throws {
        files = try TemporaryFileSystem(size: 4 << 20)
        image = files.path + "/image"
        try #require(FileManager.default.createFile(atPath: image, contents: nil))
    }

    private func makeServer(_ size: Int) throws -> TestServer {
        try #require(truncate(image, off_t(size)) == 0)
        return try TestServer(files.path + "/:rw")
    }

    /// The status of an answer, without reading the rest: a list of 2^60 digests has no end.
    private func status(
        _ server: TestServer, _ method: String, _ target: String, _ headers: [String] = [],
        body: [UInt8]? = nil
    ) throws -> Int {
        let connection = try HTTPConnection(port: server.port)
        try connection.send(HTTPConnection.request(method, target, headers, body: body))
        let head = String(decoding: try connection.socket.receive(), as: UTF8.self)
        return head.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0
    }

    private func expectAlive(_ server: TestServer) throws {
        #expect(try server.ask("GET", "/v1").status == 200)
    }

    @Test(arguments: sizes)
    func `lists, descriptions and contents of a huge image are answered`(size: Int) throws {
        let server = try makeServer(size)
        for target in ["/v1", "/v1/devices", Route.device(image).path] {
            for method in ["GET", "HEAD"] {
                #expect(try server.ask(method, target).status == 200, "\(method) \(target)")
            }
        }
        let content = Route.content(image).path
        _ = try status(server, "GET", content)
        _ = try status(server, "HEAD", content)
        var ranges = ["-1", "-4096", "-0"]
        for number in Self.numbers {
            ranges += ["-\(number)", "\(number)-", "\(number)-\(number)", "0-\(number)"]
        }
        for range in ranges {
            let found = try status(server, "GET", content, ["Range: bytes=\(range)"])
            #expect((200..<600).contains(found), "\(range)")
        }
        try expectAlive(server)
    }

    @Test(arguments: sizes)
    func `pdiffcopy's endpoints for a huge image are answered`(size: Int) throws {
        let server = try makeServer(size)
        let name = "filename=\(percentEncoded(image))"
        #expect(try server.ask("GET", "/info?\(name)").status == 200)
        for block in [1, 511, 512, 4096, 1 << 20, 64 << 20] {
            for method in ["HEAD", "GET"] {
                for digest in ["md5", "sha512"] {
                    let query = "\(name)&block_size=\(block)&method=\(digest)"
                    let found = try status(server, method, "/hashes?\(query)")
                    #expect((200..<600).contains(found), "\(query)")
                }
            }
        }
        for offset in Self.numbers {
            for count in Self.numbers {
                let query = "\(name)&offset=\(offset)&size=\(count)"
                let found = try status(server, "GET", "/blocks?\(query)")
                #expect((200..<600).contains(found), "\(query)")
            }
            let found = try status(
                server, "POST", "/blocks?\(name)&offset=\(offset)", body: [1, 2, 3])
            #expect((200..<600).contains(found), "\(offset)")
        }
        for number in Self.numbers {
            let found = try status(server, "POST", "/resize?\(name)&size=\(number)")
            #expect((200..<600).contains(found), "\(number)")
            try #require(truncate(image, off_t(size)) == 0)
        }
        try expectAlive(server)
    }

    @Test(arguments: [SessionRequest.Mode.read, .write, .dryRun])
    func `every request of a session on a huge image is answered`(mode: SessionRequest.Mode) throws
    {
        let server = try makeServer(1 << 60)
        for block in [512, 4096, 1 << 20, 16 << 20, 0, -1, 1 << 40, .max, .min] {
            for size in [1, 1 << 59, 1 << 60, 1 << 60 + 1, .max, .min] {
                // A session to write gives the image its size.
                try #require(truncate(image, off_t(1 << 60)) == 0)
                let answer = try server.open(image, mode, block: block, size: size)
                guard answer.status == 201 else {
                    #expect((400..<500).contains(answer.status), "\(block) \(size) \(answer.text)")
                    continue
                }
                let session = try answer.decoded(as: SessionRecord.self).session
                if block == 4096 && size == 1 << 60 { try ask(server, session) }
                #expect(try server.ask("DELETE", Route.session(session).path).status == 204)
            }
        }
        for size in [1 << 60 + 4096, Int.max / 4096 * 4096] {
            try #require(truncate(image, off_t(size)) == 0)
            let found = try server.open(image, mode, size: 1 << 60).status
            #expect((400..<600).contains(found), "\(size)")
        }
        try expectAlive(server)
    }

    @Test func `the figures of a session may be more than an Int holds`() throws {
        let server = try makeServer(1 << 60)
        let all = "/blocks?filename=\(percentEncoded(image))&offset=0&size=\(1 << 60)"
        for _ in 0..<10 { #expect(try status(server, "GET", all) == 200) }
        try expectAlive(server)

        let other = try makeServer(1 << 60)
        let session = try other.session(image, .write, size: 1 << 60)
        let word = UInt64(1) << 56 | (1 << 56 - 4096)
        let zeros = try Wire.sealed(
            little(UInt64(0)) + little(word) + little(UInt32(1)) + little(UInt32(0)))
        for _ in 0..<130 {
            let target = Route.write(session: session.session).path
            #expect(try other.ask("POST", target, [Wire.frames], body: zeros).status == 204)
        }
        #expect(try other.commit(session.session).status == 204)
        try expectAlive(other)
    }

    /// Frames for places near the end and beyond, and sizes to cut the device to.
    private func ask(_ server: TestServer, _ session: String) throws {
        let kinds: [UInt64] = [0, 1, 2]
        for offset in Self.numbers {
            for length in Self.numbers {
                for kind in [UInt64(1), 2] {
                    let head = little(UInt32(kind)) + little(UInt32(kind == 1 ? 1 : 0))
                    let frame = try Wire.sealed(head + little(offset) + little(length))
                    try expectAnswer(server, Route.compare(session: session), frame)
                }
                for kind in kinds {
                    let word = kind << 56 | length & (1 << 56 - 1)
                    let frame = try Wire.sealed(
                        little(offset) + little(word) + little(UInt32(1)) + little(UInt32(0)))
                    try expectAnswer(server, Route.read(session: session), frame)
                    // Zeros at most: what is written would fill the file system.
                    if kind == 1, length > 1 << 40 || length == 0 {
                        try expectAnswer(server, Route.write(session: session), frame)
                    }
                }
            }
        }
        for size in [0, 1, 1 << 59, 1 << 60 + 1, 1 << 62, Int.max, -1, Int.min] {
            let body = WireJSON.encode(CommitRequest(size: size, release: false))
            let found = try server.ask(
                "POST", Route.commit(session: session).path, [Wire.json], body: body
            ).status
            #expect((200..<600).contains(found), "\(size)")
        }
    }

    private func expectAnswer(_ server: TestServer, _ route: Route, _ frame: [UInt8]) throws {
        let found = try server.ask("POST", route.path, [Wire.frames], body: frame).status
        #expect((200..<600).contains(found), "\(route)")
    }

    private func little(_ number: some FixedWidthInteger) -> [UInt8] {
        withUnsafeBytes(of: number.littleEndian) { Array($0) }
    }
}
