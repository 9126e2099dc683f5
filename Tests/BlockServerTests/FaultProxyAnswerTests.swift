// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import SystemPackage
import TestSupport
import Testing

/// The proxy as a bad HTTP proxy.
@Suite(.blocking, .timeLimit(.minutes(60))) struct FaultProxyAnswerTests {
    private let server: ScriptedServer
    private let proxy: FaultProxy

    init() throws {
        server = ScriptedServer.http()
        proxy = try FaultProxy(upstreamPort: server.port)
    }

    private func request(
        _ method: String, body: Int, headers: String = "", _ connection: StreamSocket
    ) throws -> HTTPMessage {
        try connection.send(
            "\(method) /v1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: \(body)\r\n\(headers)\r\n"
        )
        try connection.send([UInt8](repeating: 65, count: body))
        return try #require(try HTTPMessage(from: connection))
    }

    @Test(arguments: [500, 503])
    func `the proxy answers the next requests, and the server answers the others`(status: Int)
        throws
    {
        let connection = try proxy.connect()
        #expect(try request("PUT", body: 3, connection).text == "served 3")
        proxy.answers = .init(status: status, count: 2, retryAfter: 7)
        for _ in 0..<2 {
            let answer = try request("PUT", body: 1 << 20, connection)
            #expect(answer.status == "\(status)")
            #expect(answer.head.contains("Retry-After: 7\r\n"))
            #expect(answer.head.contains("Content-Type: text/plain\r\n"))
            #expect(answer.text.hasPrefix("\(status) "))
        }
        #expect(try request("PUT", body: 1 << 20, connection).text == "served \(1 << 20)")
        #expect(proxy.counters.requests == 2)
        #expect(proxy.counters.answers == 2)
        #expect(proxy.counters.connections == 1)
        #expect(proxy.counters.bytesToServer < 3 << 19)
        #expect(proxy.answers?.count == 0)
    }

    @Test func `an answer of the proxy may end the connection`() throws {
        proxy.answers = .init(status: 503, count: 1, isClosing: true)
        let connection = try proxy.connect()
        let answer = try request("GET", body: 0, connection)
        #expect(answer.head.contains("Connection: close\r\n"))
        #expect(!answer.head.contains("Retry-After"))
        #expect(try connection.receive().isEmpty)
    }

    @Test func `a client that asks for leave to send its body gets it`() throws {
        proxy.answers = .init(status: 503, count: 1)
        let connection = try proxy.connect()
        try connection.send("PUT / HTTP/1.1\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        #expect(try HTTPMessage(from: connection)?.status == "100")
        try connection.send("body")
        #expect(try HTTPMessage(from: connection)?.status == "503")
        #expect(try request("GET", body: 0, connection).text == "served 0")
    }

    @Test func `the proxy answers although no server is there`() throws {
        server.stop()
        proxy.answers = .init(status: 503, count: 1)
        let connection = try proxy.connect()
        #expect(try request("GET", body: 0, connection).status == "503")
        try connection.send("GET / HTTP/1.1\r\n\r\n")
        #expect(throws: Errno.connectionReset) { try connection.receive() }
    }

    @Test func `an answer of the proxy is late by the delay of both ways`() throws {
        proxy.delay = 0.1
        proxy.answers = .init(status: 503, count: 1)
        let start = ContinuousClock.now
        #expect(try request("GET", body: 0, proxy.connect()).status == "503")
        #expect(ContinuousClock.now - start >= .milliseconds(200))
    }

    @Test func `a request that comes byte by byte is still one request`() throws {
        let connection = try proxy.connect()
        for status in ["200", "503", "200"] {
            if status == "503" { proxy.answers = .init(status: 503, count: 1) }
            for byte in "POST /x HTTP/1.1\r\ncontent-length: 5\r\n\r\nhello".utf8 {
                try connection.send([byte])
            }
            #expect(try HTTPMessage(from: connection)?.status == status)
        }
        #expect(proxy.counters.requests == 2)
    }

    @Test func `bytes that are not HTTP pass untouched while answers are due`() throws {
        let echo = ScriptedServer.echo()
        proxy.upstreamPort = echo.port
        proxy.answers = .init(status: 503, count: 1)
        for text in ["hello", "GET it\r\n\r\n", "\u{16}\u{3}\u{1}TLS"] {
            let connection = try proxy.connect()
            try connection.send(text)
            #expect(try connection.receive(count: text.utf8.count) == Array(text.utf8))
        }
        let connection = try proxy.connect()
        try connection.send("GET / unfinished")
        connection.endSending()
        #expect(try connection.receive(count: 100) == Array("GET / unfinished".utf8))
        #expect(proxy.counters.answers == 0)
    }
}
