// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockServer
import Foundation
import NIOHTTP1
import TestSupport
import Testing
import WireProtocol

@testable import BlockServer

/// Requests that a web page has a browser send.
@Suite(.blocking, .timeLimit(.minutes(60))) struct HTTPBrowserTests {
    private let scratch: ScratchDirectory
    private let image: SeededImage
    private let server: TestServer
    private let withToken: TestServer
    private static let token = "a-token-of-enough-characters"

    init() throws {
        scratch = try ScratchDirectory()
        image = try SeededImage(scratch, size: 1 << 20)
        server = try TestServer(image.path + ":rw")
        withToken = try TestServer(image.path + ":rw") {
            $0.tokens = [TokenEntry(name: "a", token: Self.token)]
        }
    }

    private var paths: [(String, String)] {
        let name = percentEncoded(image.path)
        return [
            ("GET", "/v1"), ("GET", "/v1/devices"), ("GET", Route.content(image.path).path),
            ("POST", Route.sessions(device: image.path).path), ("OPTIONS", "/v1/devices"),
            ("GET", "/info?filename=\(name)"), ("GET", "/hashes?method=sha1&filename=\(name)"),
            ("GET", "/blocks?offset=0&size=1&filename=\(name)"),
            ("POST", "/blocks?offset=0&filename=\(name):overwrite"),
            ("POST", "/resize?size=1&filename=\(name)"), ("GET", "/nowhere"),
        ]
    }

    private static let pages = [
        "Origin: https://evil.example", "Origin: null", "Origin: http://localhost:8080",
        "Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site", "Sec-Fetch-Site: CROSS-SITE",
        "Sec-Fetch-Site: none\r\nSec-Fetch-Site: cross-site",
    ]

    @Test(arguments: pages)
    func `a request from a page of another site is refused everywhere, with a token too`(
        header: String
    ) throws {
        for (method, path) in paths {
            let body: [UInt8]? = method == "POST" ? [1, 2, 3] : nil
            let open = try server.ask(method, path, [header], body: body)
            #expect(open.status == 403 && open.problem == .unauthorized, "\(method) \(path)")
            #expect(open.headers["access-control-allow-origin"] == nil)
            let bearer = "Authorization: Bearer \(Self.token)"
            #expect(
                try withToken.ask(method, path, [header, bearer], body: body).status == 403,
                "\(method) \(path)")
        }
        #expect(try [UInt8](contentsOf: image.path) == image.bytes)
    }

    @Test func `a page cannot make its reader's address wait for wrong tokens`() throws {
        let wrong = "Authorization: Bearer \(Self.token)x"
        for _ in 0..<3 {
            #expect(
                try withToken.ask("GET", "/v1", [wrong, "Origin: https://evil.example"]).status
                    == 403)
        }
        #expect(withToken.log.all(with: "wrong token").isEmpty)
        #expect(
            try withToken.ask("GET", "/v1", ["Authorization: Bearer \(Self.token)"]).status == 200)
    }

    @Test(arguments: ["Sec-Fetch-Site: none", "Sec-Fetch-Site: same-origin", "X-Origin: a"])
    func `an address that a person types, and the server's own pages, are answered`(header: String)
        throws
    {
        #expect(try server.ask("GET", "/v1", [header]).status == 200)
    }

    private func ask(_ server: TestServer, host: String, _ more: String = "") throws -> HTTPAnswer {
        let connection = try HTTPConnection(port: server.port)
        try connection.send("GET /v1 HTTP/1.1\r\nHost: \(host)\r\n\(more)\r\n")
        return try connection.answer()
    }

    @Test(arguments: [
        "evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example",
        "192.0.2.1", "[2001:db8::1]:8080", "notlocalhost", "", "127.0.0.1@evil.example", "0.0.0.0",
        "[::1].evil.example", "localhost:evil.com", "127.0.0.1:evil.com", "[::1]:evil.com",
        "localhost:80:evil", "localhost:+80", "localhost:123456", "[::1]localhost",
        "[::1", "[127.0.0.1", "[localhost", "[",
    ])
    func `a rebound host name is refused without tokens, and accepted with one`(host: String) throws
    {
        let answer = try ask(server, host: host)
        #expect(answer.status == 403 && answer.problem == .unauthorized)
        #expect(
            try ask(withToken, host: host, "Authorization: Bearer \(Self.token)\r\n").status == 200)
    }

    @Test(arguments: [
        "127.0.0.1", "127.0.0.1:1", "localhost", "LocalHost:99", "localhost.", "a.localhost",
        "[::1]:8080", "[::ffff:127.0.0.1]", "127.9.9.9",
    ])
    func `every name of the loopback interface is the server's`(host: String) throws {
        #expect(try ask(server, host: host).status == 200)
    }

    @Test(arguments: [
        ("192.0.2.1", true), ("[2001:db8::1]:8080", true), ("backup:8080", true),
        ("localhost", true), ("evil.example", false), ("backup.evil.example", false), ("", false),
        ("backup:evil", false), ("192.0.2.1:evil.com", false), ("[2001:db8::1]evil", false),
        ("backup:", true), ("[2001:db8::1", false), ("[backup", false),
    ])
    func `a server for all addresses answers to addresses and to names that nobody can register`(
        host: String, isOurs: Bool
    ) throws {
        #expect(BrowserRules.isOurs(host, .local) == isOurs)
        let open = try TestServer(image.path) { $0.address = .host("0.0.0.0", port: 0) }
        #expect(try ask(open, host: host).status == (isOurs ? 200 : 403))
    }

    @Test func `a whole URL is a request target, and its host is checked as well`() throws {
        func ask(_ target: String, _ headers: String = "Host: localhost\r\n") throws -> HTTPAnswer {
            let connection = try HTTPConnection(port: server.port)
            try connection.send("GET \(target) HTTP/1.1\r\n\(headers)\r\n")
            return try connection.answer()
        }
        for target in [
            "http://localhost/v1", "HTTP://127.0.0.1:\(server.port)/v1/devices?x",
            "https://localhost/v1/",
        ] {
            #expect(try ask(target).status == 200, "\(target)")
        }
        #expect(try ask("http://evil.example/v1").status == 403)
        #expect(try ask("http://localhost").status == 200)
        #expect(try ask("http://localhost/info?filename=\(image.path)").status == 200)
        #expect(try ask("/v1", "").status == 400)
        #expect(try ask("http://localhost/v1", "").status == 400)
        #expect(try ask("/v1", "Host: localhost\r\nHost: localhost\r\n").status == 400)
    }

    @Test func `HTTP 1.0 needs no Host`() throws {
        let connection = try HTTPConnection(port: server.port)
        try connection.send("GET /v1 HTTP/1.0\r\n\r\n")
        #expect(try connection.answer().status == 200)
    }

    @Test func `pdiffcopy's endpoints can be switched off`() throws {
        let server = try TestServer(image.path + ":rw") { $0.servesPdiffcopy = false }
        for (method, path) in paths where !path.hasPrefix("/v1") {
            let answer = try server.ask(method, path, body: method == "POST" ? [1] : nil)
            #expect(answer.status == 404, "\(method) \(path)")
        }
        #expect(try server.ask("GET", "/v1").status == 200)
        #expect(try [UInt8](contentsOf: image.path) == image.bytes)
    }

    @Test func `the option --no-pdiffcopy switches those endpoints off, and no others`() throws {
        let server = try ServeProcess(image.path + ":rw", options: ["--no-pdiffcopy"])
        for (method, path) in paths where !path.hasPrefix("/v1") {
            let answer = try HTTPConnection(port: server.port)
                .ask(method, path, body: method == "POST" ? [1] : nil)
            #expect(answer.status == 404, "\(method) \(path)")
        }
        #expect(try [UInt8](contentsOf: image.path) == image.bytes)
        let connection = try HTTPConnection(port: server.port)
        for path in ["/v1", "/v1/devices", Route.device(image.path).path] {
            #expect(try connection.ask("GET", path).status == 200, "\(path)")
        }
        #expect(try connection.ask("GET", Route.content(image.path).path).body == image.bytes)
        let session = try connection.ask(
            "POST", Route.sessions(device: image.path).path, [Wire.json],
            body: WireJSON.encode(Wire.sessionRequest(.read)))
        #expect(session.status == 201, "\(session.text)")
    }

    @Test(arguments: [
        "GET /v1 HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        "GET /v1 HTTP/1.1\r\nHost: localhost\r\nUpgrade: h2c\r\n\r\n",
        "CONNECT evil.example:443 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "CONNECT localhost:1 HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    ])
    func `after Upgrade and CONNECT the connection is closed without a wait`(request: String) throws
    {
        let connection = try HTTPConnection(port: server.port, patience: 10)
        try connection.send(request + "GET /v1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        let answer = try connection.answer()
        #expect([200, 403, 404, 405].contains(answer.status))
        #expect(answer.headers["connection"] == "close")
        // The end, or a reset where the server had not read all.
        #expect((try? connection.isEnded()) ?? true)
    }
}
