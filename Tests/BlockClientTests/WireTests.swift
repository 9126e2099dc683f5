// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockClient
import LinuxIO
import Synchronization
import TestSupport
import Testing

/// What goes over the wire.
@Suite(.timeLimit(.minutes(60))) struct WireTests {
    /// Sends one request and gives back its head as the server saw it.
    private func head(
        _ method: HTTPRequest.Method, _ path: String = "/", type: String? = nil,
        _ body: [UInt8]? = nil, userAgent: String? = nil
    ) throws -> (lines: [String], body: [UInt8], server: ScriptedServer) {
        let seen = Mutex<HTTPMessage?>(nil)
        let server = ScriptedServer { connection, _ in
            guard let request = connection.readRequest() else { return }
            seen.withLock { $0 = request }
            connection.answer()
        }
        defer { server.stop() }
        let transport = try makeTransport(server.base) { $0.userAgent = userAgent }
        _ = try transport.call(method, path, type: type, body: body)
        let request = try #require(seen.withLock { $0 })
        return (request.head.components, request.body, server)
    }

    @Test func `a GET has its host and nothing else`() throws {
        let (lines, _, server) = try head(.get, "/v1?x=%2F")
        #expect(lines == ["GET /v1?x=%2F HTTP/1.1", "Host: 127.0.0.1:\(server.port)"])
    }

    @Test(arguments: [0, 1, 100_000, 3 << 20])
    func `a POST has its host, type and length, whatever its length`(count: Int) throws {
        var random = SystemRandomNumberGenerator()
        let content = (0..<count).map { _ in UInt8.random(in: 0...255, using: &random) }
        let (lines, body, server) = try head(.post, "/w", type: "application/x-a", content)
        #expect(
            Set(lines) == [
                "POST /w HTTP/1.1", "Host: 127.0.0.1:\(server.port)",
                "Content-Type: application/x-a", "Content-Length: \(count)",
            ])
        #expect(body == content)
    }

    @Test func `a POST without body and type says only that its body is empty`() throws {
        let (lines, _, server) = try head(.post)
        #expect(
            Set(lines) == [
                "POST / HTTP/1.1", "Host: 127.0.0.1:\(server.port)", "Content-Length: 0",
            ])
    }

    @Test func `a DELETE has its host and nothing else`() throws {
        let (lines, _, server) = try head(.delete, "/v1/sessions/1")
        #expect(
            lines == ["DELETE /v1/sessions/1 HTTP/1.1", "Host: 127.0.0.1:\(server.port)"])
    }

    @Test func `the program's name is sent if one is given`() throws {
        #expect(try head(.get, userAgent: "blkferry/1").lines.contains("User-Agent: blkferry/1"))
    }

    @Test func `a path is sent without a change`() throws {
        #expect(
            try head(.get, "/v1/devices/..%2F/../x").lines[0].contains(" /v1/devices/..%2F/../x "))
    }

    @Test func `requests of all methods share one connection`() throws {
        let methods = Mutex<[String]>([])
        let server = ScriptedServer { connection, _ in
            while let request = connection.readRequest() {
                let method = request.head.prefix { $0 != " " }
                methods.withLock { $0.append(String(method)) }
                let head = ScriptedConnection.head(length: 3)
                connection.write(method == "HEAD" ? head : head + [1, 2, 3])
            }
        }
        defer { server.stop() }
        let transport = try makeTransport(server.base)
        for round in 0..<3 {
            #expect(
                try transport.call(.post, type: "a/b", body: [9]).body == [1, 2, 3], "\(round)")
            #expect(try transport.call(.head).body == [])
            #expect(try transport.call(.delete).body == [1, 2, 3])
            #expect(try transport.call(.get).body == [1, 2, 3])
        }
        #expect(methods.withLock { $0 }.prefix(4) == ["POST", "HEAD", "DELETE", "GET"])
        #expect(server.requests == 12 && server.connections == 1)
    }

    @Test func `a server with an IPv6 address is reached`() throws {
        try #require(ScriptedServer.hasV6, "this machine has no ::1")
        let server = ScriptedServer(host: "::1") { connection, _ in connection.serve { _ in [6] } }
        defer { server.stop() }
        #expect(try makeTransport(server.base).call().body == [6])
    }

    @Test func `a redirect is an answer, and content codings stay as they came`() throws {
        let server = ScriptedServer { connection, _ in
            _ = connection.readRequest()
            connection.write(
                "HTTP/1.1 302 X\r\nLocation: /other\r\nContent-Encoding: gzip\r\n"
                    + "Content-Length: 2\r\n\r\nzz")
            connection.waitForEnd()
        }
        defer { server.stop() }
        let answer = try makeTransport(server.base).call()
        #expect(answer == Answer(status: 302, contentType: "", body: [0x7A, 0x7A]))
        #expect(server.requests == 1)
    }

    @Test func `an answer in chunks is put together`() throws {
        let server = ScriptedServer { connection, _ in
            _ = connection.readRequest()
            connection.write(
                "HTTP/1.1 200 X\r\nContent-Type: a/b\r\nTransfer-Encoding: chunked\r\n\r\n"
                    + "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
            connection.waitForEnd()
        }
        defer { server.stop() }
        let answer = try makeTransport(server.base).call()
        #expect(answer == Answer(status: 200, contentType: "a/b", body: [UInt8]("abcde".utf8)))
    }

    @Test(arguments: [nil, 50_000_000])
    func `the traffic is what the server counts`(limit: Int?) throws {
        let counted = Atomic(0)
        let server = ScriptedServer { connection, _ in
            while let request = connection.readRequest() {
                counted.wrappingAdd(request.byteCount, ordering: .relaxed)
                connection.answer(request.body)
            }
        }
        defer { server.stop() }
        let transport = try makeTransport(server.base) { $0.bytesPerSecond = limit }
        var received = 0
        for count in [0, 1, 1000, 65_400, 65_536, 70_000, 3 << 20] {
            _ = try transport.call(.post, type: "a/b", body: [UInt8](repeating: 1, count: count))
            received += ScriptedConnection.head(length: count).count + count
            #expect(transport.traffic.sent == counted.load(ordering: .relaxed), "\(count)")
            #expect(transport.traffic.received == received, "\(count)")
        }
        _ = try transport.call(.get)
        #expect(transport.traffic.sent == counted.load(ordering: .relaxed))
    }

    @Test func `sixteen threads use sixteen connections at most, and get their own answers`() throws
    {
        let server = ScriptedServer { connection, _ in connection.serve { $0.body.reversed() } }
        defer { server.stop() }
        let transport = try makeTransport(server.base)
        let wrong = Atomic(0)
        Threads.start(count: 16) { thread in
            for round in 0..<50 {
                let body = [UInt8](repeating: UInt8(thread), count: 1 + 200 * round) + [77]
                let answer = try? transport.call(.post, type: "a/b", body: body)
                if answer?.body != body.reversed() { wrong.wrappingAdd(1, ordering: .relaxed) }
            }
        }.wait()
        #expect(wrong.load(ordering: .relaxed) == 0)
        #expect(server.requests == 800)
        #expect((1...16).contains(server.connections))
    }
}

extension ScriptedConnection {
    fileprivate func answer(_ body: [UInt8]) { answer(200, body) }
}

extension String {
    /// The lines of a head, without the empty one.
    fileprivate var components: [String] { split(separator: "\r\n").map(String.init) }
}
