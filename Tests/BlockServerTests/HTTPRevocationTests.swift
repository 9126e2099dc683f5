// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockServer
import Foundation
import TestSupport
import Testing
import WireProtocol

@testable import BlockServer

/// Revoked rights end sessions, downloads and waiting requests.
@Suite(.blocking, .timeLimit(.minutes(60))) struct HTTPRevocationTests {
    private let scratch: ScratchDirectory
    private let size = 1 << 20
    private let server: TestServer
    private static let tokens = (0..<3).map { "token-\($0)-of-enough-characters" }

    /// What SIGHUP brings.
    enum Change: CaseIterable, Sendable {
        case removed, otherToken, otherName, readOnly, otherSelectors, expired, elsewhere
        case appendOnly, noExport, readOnlyExport, otherExport

        /// The line of the client; `nil` for none.
        var line: String? {
            let token = HTTPRevocationTests.tokens[0]
            switch self {
            case .removed: return nil
            case .otherToken: return "me \(HTTPRevocationTests.tokens[2])"
            case .otherName: return "you \(token)"
            case .readOnly: return "me \(token) ro"
            case .otherSelectors: return "me \(token) /nowhere"
            case .expired: return "me \(token) expires=2001-01-01"
            case .elsewhere: return "me \(token) from=192.0.2.0/24"
            case .appendOnly: return "me \(token) append-only"
            case .noExport, .readOnlyExport, .otherExport: return "me \(token)"
            }
        }
    }

    init() throws {
        scratch = try ScratchDirectory()
        try makeImage(scratch.file("image"), [UInt8](repeating: 7, count: size))
        try must("truncate", "-s", "256M", scratch.file("large"))
        server = try TestServer(scratch.file("image") + ":rw", scratch.file("large")) {
            $0.tokens = try? Self.entries("me \(Self.tokens[0])")
            $0.sessionTimeout = 3600
        }
    }

    private static func entries(_ line: String?) throws -> [TokenEntry] {
        try [line, "other \(tokens[1])"].compactMap { $0 }.map { try TokenEntry(line: $0[...]) }
    }

    private func replace(_ line: String?, exports: [String]? = nil) throws {
        let exports = exports ?? [scratch.file("image") + ":rw", scratch.file("large")]
        try server.server.replace(
            exports: try exports.map { try ExportSelector($0) }, tokens: try Self.entries(line))
    }

    private func bearer(_ token: Int) -> String { "Authorization: Bearer \(Self.tokens[token])" }

    private func open(
        _ mode: SessionRequest.Mode, token: Int = 0, size: Int? = nil
    ) throws -> HTTPAnswer {
        let body = WireJSON.encode(Wire.sessionRequest(mode, size: size ?? self.size))
        return try server.ask(
            "POST", Route.sessions(device: scratch.file("image")).path, [Wire.json, bearer(token)],
            body: body)
    }

    @Test(arguments: Change.allCases, [true, false])
    func `a session that is not allowed any more is flushed and ended`(
        change: Change, asks: Bool
    ) throws {
        // The commit of a session for a smaller size would cut it.
        let answer = try open(.write, size: change == .appendOnly ? size / 2 : nil)
        let session = try answer.decoded(as: SessionRecord.self).session
        #expect(try open(.write, token: 1).status == 423)
        var exports: [String]?
        switch change {
        case .noExport: exports = [scratch.file("large")]
        case .readOnlyExport: exports = [scratch.file("image")]
        case .otherExport: exports = [scratch.file("im") + "/:rw"]
        default: break
        }
        try replace(change.line, exports: exports)
        if asks {
            let answer = try server.ask(
                "POST", Route.write(session: session).path, [Wire.frames, bearer(0)],
                body: try Wire.write([UInt8](repeating: 9, count: 4096), at: 0))
            #expect([401, 404].contains(answer.status), "\(answer.text)")
            let file = try Data(contentsOf: URL(fileURLWithPath: scratch.file("image")))
            #expect(file.allSatisfy { $0 == 7 })
        }
        #expect(becomesTrue { server.server.sessionCount == 0 })
        #expect(becomesTrue { server.log.all(with: "not allowed any more").count == 1 })
        try replace(change.line)
        #expect(try open(.write, token: 1).status == 201)
    }

    @Test(arguments: [
        "me \(tokens[0])", "me \(tokens[0]) expires=2999-01-01 from=127.0.0.0/8",
        "me \(tokens[0]) append-only", "me \(tokens[0]) max-size=1M",
    ])
    func `a session that is still allowed goes on`(line: String) throws {
        let session = try open(.write).decoded(as: SessionRecord.self).session
        try replace(line)
        for _ in 0..<2 {
            let answer = try server.ask(
                "POST", Route.write(session: session).path, [Wire.frames, bearer(0)],
                body: try Wire.write([UInt8](repeating: 9, count: 4096), at: 0))
            #expect(answer.status == 204, "\(answer.text)")
            try replace(line, exports: [scratch.path + "/:rw"])
        }
        // Reading needs no more than that.
        let answer = try server.ask("DELETE", Route.session(session).path, [bearer(0)])
        #expect(answer.status == 204)
        let reading = try open(.read).decoded(as: SessionRecord.self).session
        try replace("me \(Self.tokens[0]) ro", exports: [scratch.file("image")])
        let read = try server.ask(
            "POST", Route.read(session: reading).path, [Wire.frames, bearer(0)],
            body: try Wire.read((0, 4096)))
        #expect(read.status == 200)
    }

    /// Sends the head of a request, and returns when the server waits for its body.
    private func sendHead(
        _ path: String, _ headers: [String] = [], length: Int
    ) throws -> HTTPConnection {
        let connection = try HTTPConnection(port: server.port)
        let more = ["Content-Length: \(length)", "Expect: 100-continue", bearer(0)]
        try connection.send(HTTPConnection.request("POST", path, headers + more))
        #expect(try connection.answer().status == 100)
        return connection
    }

    /// Opens a session to write, and changes the client's line between head and body.
    private func open(_ name: String, size: Int, changing line: String?) throws -> HTTPAnswer {
        let exports = [scratch.path + "/:rw"]
        try replace("me \(Self.tokens[0])", exports: exports)
        let body = WireJSON.encode(Wire.sessionRequest(.write, size: size))
        let path = Route.sessions(device: scratch.file(name)).path
        let connection = try sendHead(path, [Wire.json], length: body.count)
        try replace(line, exports: exports)
        try connection.send(body)
        return try connection.answer()
    }

    @Test(
        arguments: [
            (nil, 401), ("me \(tokens[2])", 401), ("me \(tokens[0]) expires=2001-01-01", 401),
            ("me \(tokens[0]) from=192.0.2.0/24", 401), ("me \(tokens[0]) ro", 403),
            ("me \(tokens[0]) /nowhere", 404), ("me \(tokens[0]) max-size=1M", 409),
            ("me \(tokens[0]) append-only", 201), ("you \(tokens[0])", 201),
        ] as [(String?, Int)])
    func `an image is created only if its token allows it when the body comes`(
        line: String?, status: Int
    ) throws {
        let answer = try open("new", size: size, changing: line)
        #expect(answer.status == status, "\(answer.text)")
        let isThere = FileManager.default.fileExists(atPath: scratch.file("new"))
        #expect(isThere == (status == 201))
        #expect(server.server.sessionCount == (status == 201 ? 1 : 0))
    }

    @Test(
        arguments: [
            (nil, 2 << 20, 401), ("me \(tokens[0]) ro", 2 << 20, 403),
            ("me \(tokens[0]) max-size=1M", 2 << 20, 409),
            ("me \(tokens[0]) append-only", 1 << 19, 403),
        ] as [(String?, Int, Int)])
    func `an image is resized only if its token allows it when the body comes`(
        line: String?, newSize: Int, status: Int
    ) throws {
        let answer = try open("image", size: newSize, changing: line)
        #expect(answer.status == status, "\(answer.text)")
        #expect(try Data(contentsOf: URL(fileURLWithPath: scratch.file("image"))).count == size)
        #expect(server.server.sessionCount == 0)
    }

    @Test func `no further piece of a body is written after its token was removed`() throws {
        let large = scratch.file("large")
        let exports = [large + ":rw"]
        try replace("me \(Self.tokens[0])", exports: exports)
        let piece = [UInt8](repeating: 9, count: Limits.body)
        let connection = try sendHead(
            "/blocks?offset=0&filename=\(percentEncoded(large))", length: 2 * piece.count)
        func byte(at offset: Int) throws -> UInt8? {
            let file = try FileHandle(forReadingFrom: URL(fileURLWithPath: large))
            try file.seek(toOffset: UInt64(offset))
            return try file.read(upToCount: 1)?.first
        }
        try connection.send(piece)
        #expect(try becomesTrue { try byte(at: piece.count - 1) == 9 })
        try replace(nil, exports: exports)
        try connection.send(piece)
        let answer = try connection.answer()
        #expect(answer.status == 401, "\(answer.text)")
        #expect(try byte(at: piece.count) == 0)
    }

    @Test func `a session does not outlast its token, whether its client sends requests or not`()
        throws
    {
        // On a busy machine the token may end before the request comes.
        for lifetime in [2, 8, 32] {
            var entry = try TokenEntry(line: "me \(Self.tokens[0])")
            entry.expires = time(nil) + lifetime
            try server.server.replace(
                exports: [try ExportSelector(scratch.file("image") + ":rw")], tokens: [entry])
            let status = try open(.write).status
            if status == 401 { continue }
            #expect(status == 201)
            #expect(becomesTrue { server.server.sessionCount == 0 })
            #expect(try open(.write).status == 401)
            return
        }
        Issue.record("no request came before its token had ended")
    }

    private static let downloads = [
        "/v1/devices/%LARGE%/content", "/blocks?filename=%LARGE%&offset=0&size=268435456",
        "/hashes?filename=%LARGE%&method=md5&block_size=512",
    ]

    private func target(_ path: String) -> String {
        path.replacing(
            "%LARGE%", with: percentEncoded(scratch.file("large")).replacing("/", with: "%2F"))
    }

    @Test(arguments: downloads)
    func `a running download does not outlast its token, whether its client reads or not`(
        path: String
    ) throws {
        // On a busy machine the token may end before the request comes.
        for lifetime in [3, 12, 48] {
            var entry = try TokenEntry(line: "me \(Self.tokens[0])")
            entry.expires = time(nil) + lifetime
            try server.server.replace(
                exports: [try ExportSelector(scratch.file("large"))], tokens: [entry])
            let connection = try HTTPConnection(port: server.port)
            try connection.send(HTTPConnection.request("GET", target(path), [bearer(0)]))
            let beginning = try connection.socket.receive(limit: 15)
            guard String(decoding: beginning, as: UTF8.self) == "HTTP/1.1 200 OK" else { continue }
            let isOver = { [server] in
                server.server.connectionCount == 0 && server.server.sessionCount == 0
            }
            #expect(becomesTrue(within: Double(lifetime) + 20, isOver))
            return
        }
        Issue.record("no request came before its token had ended")
    }

    @Test(arguments: downloads)
    func `a running download is ended, whether its client reads or not`(path: String) throws {
        let path = target(path)
        let connection = try HTTPConnection(port: server.port)
        try connection.send(HTTPConnection.request("GET", path, [bearer(0)]))
        #expect(try !connection.socket.receive().isEmpty)
        try replace(nil)
        #expect(becomesTrue { server.server.connectionCount == 0 })
        #expect(becomesTrue { server.server.sessionCount == 0 })
        // Those that are allowed go on.
        let other = try HTTPConnection(port: server.port)
        try other.send(HTTPConnection.request("GET", path, [bearer(1)]))
        #expect(try !other.socket.receive().isEmpty)
        try replace(nil)
        #expect(try other.socket.receive().count > 0)
        #expect(server.server.connectionCount == 1)
    }

    @Test func `an image that an earlier name still finds may be read and written`() throws {
        let (image, large) = (scratch.file("image"), scratch.file("large"))
        func covers(_ selector: String, name: String) throws -> Bool {
            let found = ExportTable.Found(
                id: "NAME=x", name: name, path: name, access: .readWrite, description: nil)
            return try ExportSelector(selector).covers(found)
        }
        #expect(try covers(image, name: image))
        #expect(try covers(scratch.path + "/", name: image))
        #expect(try !covers(large, name: image))
        #expect(try !covers(image, name: image + "2"))
        #expect(try covers("vg0", name: "/dev/vg0/root"))
        #expect(try !covers("vg0", name: "/dev/vg01/root"))
        #expect(try covers("vg0/root:rw,create", name: "/dev/vg0/root"))
        #expect(try !covers("UUID=1", name: image))
    }
}
