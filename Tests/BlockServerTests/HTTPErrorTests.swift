// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockServer
import Foundation
import TestSupport
import Testing
import WireProtocol

/// What is answered to those who do not keep to the protocol.
@Suite(.blocking, .timeLimit(.minutes(60))) struct HTTPErrorTests {
    private let scratch: ScratchDirectory
    private let image: SeededImage
    private let server: TestServer

    init() throws {
        scratch = try ScratchDirectory()
        image = try SeededImage(scratch, size: 64 << 10)
        server = try TestServer(image.path)
    }

    private static let session = "/v1/sessions/0123456789abcdef"

    @Test(arguments: [
        ("POST", "/v1", "GET, HEAD"), ("DELETE", "/v1/devices", "GET, HEAD"),
        ("PUT", "/v1/devices/x", "GET, HEAD"), ("POST", "/v1/devices/x/content", "GET, HEAD"),
        ("GET", "/v1/devices/x/sessions", "POST"), ("HEAD", session + "/read", "POST"),
        ("PUT", session + "/write", "POST"), ("POST", session, "GET, HEAD, DELETE"),
        ("OPTIONS", "/v1", "GET, HEAD"), ("TRACE", "/v1", "GET, HEAD"),
    ])
    func `a wrong method is answered with 405`(method: String, path: String, allow: String) throws {
        let answer = try server.ask(method, path)
        #expect(answer.status == 405 && answer.headers["allow"] == allow)
        if method != "HEAD" { #expect(answer.problem == .method) }
    }

    @Test(arguments: [
        ("/v1/devices/x/sessions", "text/plain"), ("/v1/devices/x/sessions", ""),
        (session + "/commit", MediaType.frames), (session + "/read", MediaType.json),
        (session + "/write", "application/octet-stream"), (session + "/compare", "x"),
    ])
    func `a wrong content type is answered with 415`(path: String, type: String) throws {
        let headers = type.isEmpty ? [] : ["Content-Type: \(type)"]
        let connection = try HTTPConnection(port: server.port)
        let answer = try connection.ask("POST", path, headers, body: [1, 2, 3])
        #expect(answer.status == 415 && answer.problem == .mediaType)
        // The body was read: the connection goes on.
        #expect(try connection.ask("GET", "/v1").status == 200)
    }

    @Test func `a content type may have parameters and capitals`() throws {
        let answer = try server.ask(
            "POST", "/v1/devices/x/sessions", ["Content-Type: Application/JSON; charset=utf-8"],
            body: Array("{}".utf8))
        #expect(answer.status == 400 && answer.problem == .malformed)
    }

    @Test func `a chunked body is answered with 411`() throws {
        let connection = try HTTPConnection(port: server.port)
        try connection.send(
            "POST \(Self.session)/write HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
                + "\(Wire.frames)\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
        let answer = try connection.answer()
        #expect(answer.status == 411 && answer.problem == .lengthRequired)
        #expect(answer.headers["connection"] == "close")
        #expect(try connection.isEnded())
    }

    @Test func `a body without a length is empty`() throws {
        let answer = try server.ask("POST", Self.session + "/write", [Wire.frames])
        #expect(answer.status == 404 && answer.problem == .noSession)
    }

    @Test(arguments: [
        (session + "/write", Wire.frames, 4 << 20), (session + "/read", Wire.frames, 1 << 20),
        (session + "/compare", Wire.frames, 3 << 20), (session + "/commit", Wire.json, 1 << 20),
        ("/v1/devices/x/sessions", Wire.json, 300_000), ("/v1/devices/x/sessions", Wire.json, .max),
    ])
    func `a body too large is answered with 413 before it is there`(
        path: String, type: String, length: Int
    ) throws {
        let connection = try HTTPConnection(port: server.port)
        try connection.send(
            "POST \(path) HTTP/1.1\r\nHost: localhost\r\n\(type)\r\nContent-Length: \(length)\r\n\r\n"
        )
        let answer = try connection.answer()
        #expect(answer.status == 413 && answer.problem == .tooLarge)
        // A client that sends it all the same reads the answer, too.
        guard length < 8 << 20 else { return }
        let stubborn = try HTTPConnection(port: server.port)
        try stubborn.send(
            HTTPConnection.request("POST", path, [type], body: .init(repeating: 0, count: length)))
        #expect(try stubborn.answer().status == 413)
    }

    @Test(arguments: [17 << 10, 70 << 10, 200 << 10])
    func `too large a header is answered with 431`(size: Int) throws {
        for header in [
            "X: " + String(repeating: "a", count: size),
            (0..<(size / 100)).map { "X-\($0): " + String(repeating: "b", count: 90) }
                .joined(separator: "\r\n"),
        ] {
            let connection = try HTTPConnection(port: server.port)
            try? connection.send(HTTPConnection.request("GET", "/v1", [header]))
            let answer = try connection.answer()
            #expect(answer.status == 431 && answer.problem == .tooLarge)
        }
        #expect(try server.ask("GET", "/" + String(repeating: "a", count: size)).status == 431)
    }

    @Test(arguments: [
        "garbage\r\n\r\n", "GET /v1 HTTP/9.9\r\n\r\n", "GET /v1\r\n\r\n", "\0\0\0\0\r\n\r\n",
        "GET /v1 HTTP/1.1\r\nContent-Length: -1\r\n\r\n", "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}",
        "GET /v1 HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "GET /v1 HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        "GET /v1 HTTP/1.1\r\nno colon\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "POST /v1 HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ])
    func `a malformed request is answered with 400, and the connection ends`(text: String) throws {
        let connection = try HTTPConnection(port: server.port)
        try connection.send(text)
        let answer = try connection.answer()
        #expect((400..<500).contains(answer.status) && answer.problem != nil)
        #expect(answer.headers["connection"] == "close")
        #expect(try connection.isEnded())
    }

    @Test func `half a request is answered with 408 when patience ends`() throws {
        let server = try TestServer(image.path) { $0.patience = 0.5 }
        let connection = try HTTPConnection(port: server.port)
        try connection.send(
            "POST \(Self.session)/write HTTP/1.1\r\nHost: localhost\r\n\(Wire.frames)\r\n"
                + "Content-Length: 1000\r\n\r\nhalf")
        let answer = try connection.answer()
        #expect(answer.status == 408 && answer.problem == .timeout)
        #expect(try connection.isEnded())
        #expect(becomesTrue { server.server.freeMemory == 64 << 20 })
    }

    @Test func `half a head, and silence, end the connection`() throws {
        let server = try TestServer(image.path) { $0.idleTime = 0.3 }
        for text in ["", "GET /v1 HT", "GET /v1 HTTP/1.1\r\nHost:"] {
            let connection = try HTTPConnection(port: server.port)
            if !text.isEmpty { try connection.send(text) }
            #expect(try connection.isEnded())
        }
    }

    @Test func `a client that ends its side is still answered`() throws {
        let connection = try HTTPConnection(port: server.port)
        try connection.send(HTTPConnection.request("GET", "/v1"))
        connection.socket.endSending()
        #expect(try connection.answer().status == 200)
        #expect(try connection.isEnded())
        let half = try HTTPConnection(port: server.port)
        try half.send(
            "POST \(Self.session)/write HTTP/1.1\r\n\(Wire.frames)\r\n"
                + "Content-Length: 9\r\n\r\nhalf")
        half.socket.endSending()
        #expect(becomesTrue { server.server.connectionCount == 0 })
        #expect(becomesTrue { server.server.freeMemory == 64 << 20 })
    }

    @Test func `a client that expects 100-continue gets it, or the reason why not`() throws {
        let connection = try HTTPConnection(port: server.port)
        func head(_ path: String, _ type: String, _ length: Int) -> String {
            "POST \(path) HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n\(type)\r\n"
                + "Content-Length: \(length)\r\n\r\n"
        }
        try connection.send(head(Route.sessions(device: "/x").path, Wire.json, 4))
        #expect(try connection.answer().status == 100)
        try connection.send("body")
        #expect(try connection.answer().status == 400)
        try connection.send(head("\(Self.session)/write", Wire.frames, 9_999_999))
        #expect(try connection.answer().status == 413)
        // Without a session no byte of the body is wanted.
        let other = try HTTPConnection(port: server.port)
        try other.send(head("\(Self.session)/write", Wire.frames, 4))
        #expect(try other.answer().status == 404)
    }

    @Test func `HTTP/1.0 is answered, and the connection ends`() throws {
        let connection = try HTTPConnection(port: server.port)
        try connection.send("GET /v1 HTTP/1.0\r\n\r\n")
        let answer = try connection.answer()
        #expect(answer.status == 200 && answer.headers["connection"] == "close")
        #expect(try connection.isEnded())
    }

    @Test func `pipelined requests are answered in order`() throws {
        let connection = try HTTPConnection(port: server.port)
        let path = Route.content(image.path).path
        var bytes: [UInt8] = []
        for index in 0..<200 {
            bytes += HTTPConnection.request("GET", path, ["Range: bytes=\(index)-\(index + 2)"])
            bytes += HTTPConnection.request("POST", "/v1", body: [1, 2])
        }
        try connection.send(bytes)
        for index in 0..<200 {
            #expect(try connection.answer().body == Array(image.bytes[index..<index + 3]))
            #expect(try connection.answer().status == 405)
        }
    }

    @Test func `a connection beyond the limit is answered with 503`() throws {
        let server = try TestServer(image.path) { $0.maximumConnections = 4 }
        let connections = try (0..<4).map { _ in try HTTPConnection(port: server.port) }
        for connection in connections { #expect(try connection.ask("GET", "/v1").status == 200) }
        for _ in 0..<100 {
            let rejected = try HTTPConnection(port: server.port)
            try rejected.send(HTTPConnection.request("GET", "/v1"))
            let answer = try rejected.answer()
            #expect(answer.status == 503 && answer.problem == .busy)
            #expect(answer.headers["retry-after"] == "1")
        }
        #expect(try connections[0].ask("GET", "/v1").status == 200)
        connections[0].socket.interrupt()
        #expect(becomesTrue { (try? server.ask("GET", "/v1").status) == 200 })
    }
}
