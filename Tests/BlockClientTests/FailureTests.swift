// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockClient
import LinuxIO
import TestSupport
import Testing

/// Servers that do not speak HTTP, that fall silent, and callers that want to end.
@Suite(.timeLimit(.minutes(60))) struct FailureTests {
    private func error(
        silence: Double = 60, body: [UInt8]? = nil, retrySeconds: Double = 30,
        cancel: Flag = Flag(), notes: Notes = Notes(), _ script: @escaping ScriptedServer.Script
    ) throws -> (error: IOError?, server: ScriptedServer) {
        let server = ScriptedServer(script)
        defer { server.stop() }
        let transport = try makeTransport(server.base, notes: notes, cancel: cancel) {
            $0.graceSeconds = 0.3
            $0.retrySeconds = retrySeconds
        }
        let error = failure { () throws(IOError) in
            try transport.call(body == nil ? .get : .post, body: body, silence: silence)
        }
        // The server may be behind a client that waits no longer.
        if retrySeconds == 0 { _ = becomesTrue { server.requests >= 1 } }
        return (error, server)
    }

    @Test(arguments: ["SSH-2.0-OpenSSH_9.2\r\n", "\0\u{1}\u{2}\u{3}garbage without end"])
    func `garbage is no answer, and the request is not repeated`(text: String) throws {
        let (error, server) = try error { connection, _ in
            _ = connection.readRequest()
            connection.write(text)
        }
        #expect(error?.reason == "the server does not speak HTTP")
        #expect(server.requests == 1)
    }

    @Test(arguments: ["X-A: b\r\n", "b"])
    func `headers without end are cut off`(piece: String) throws {
        let (error, server) = try error { connection, _ in
            _ = connection.readRequest()
            connection.write("HTTP/1.1 200 X\r\nX-B: ")
            let many = String(repeating: piece, count: 1000)
            while connection.write(many) {}
        }
        #expect(error?.kind == .network && error?.reason.contains("header") == true)
        #expect(server.requests == 1)
    }

    @Test func `interim answers without end are cut off`() throws {
        let (error, _) = try error { connection, _ in
            _ = connection.readRequest()
            while connection.write("HTTP/1.1 100 Continue\r\n\r\n") {}
        }
        #expect(error?.kind == .network)
    }

    private static let chunked = Array("HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n".utf8)

    @Test(arguments: ["1;", "1\r\na\r\n1;a="])
    func `an answer of framing without end is cut off`(start: String) throws {
        let (error, server) = try error { connection, _ in
            _ = connection.readRequest()
            guard connection.write(Self.chunked), connection.write(start) else { return }
            let piece = [UInt8](repeating: 0x61, count: 1 << 20)
            for _ in 0..<200 {
                guard connection.write(piece) else { return }
                pauseBriefly()
            }
        }
        #expect(error?.kind == .network, "\(String(describing: error))")
        #expect(server.requests == 1)
    }

    @Test func `an answer in chunks of one byte is accepted`() throws {
        let server = ScriptedServer { connection, _ in
            _ = connection.readRequest()
            connection.write(Self.chunked)
            for _ in 0..<120 {
                connection.write(String(repeating: "1\r\na\r\n", count: 1000))
                pauseBriefly()
            }
            connection.write("0\r\n\r\n")
        }
        defer { server.stop() }
        let transport = try makeTransport(server.base)
        let answer = try transport.call(silence: 3, isRetried: false)
        #expect(answer.body.count == 120_000)
    }

    @Test(arguments: ["http:/x", "ftp://x:80", "http://", "http://x:80/path", "x:80", ""])
    func `a URL that names no server is refused`(base: String) {
        #expect(throws: IOError.self) { _ = try makeTransport(base) }
    }

    @Test func `the error names a server without TLS`() throws {
        let server = ScriptedServer { connection, _ in
            _ = connection.read(100)
            connection.write("HTTP/1.1 400 X\r\n\r\n")
        }
        defer { server.stop() }
        let transport = try makeTransport("https://127.0.0.1:\(server.port)")
        let error = failure { () throws(IOError) in try transport.call() }
        #expect(error?.kind == .network && error?.reason.contains("does not speak TLS") == true)
        #expect(server.connections == 1)
    }

    @Test func `a missing answer is a timeout, and the request is repeated`() throws {
        let notes = Notes()
        let time = try seconds {
            let (error, server) = try error(silence: 0.3, retrySeconds: 0.5, notes: notes) {
                connection, _ in
                _ = connection.readRequest()
                connection.waitForEnd()
            }
            #expect(error?.reason == "no answer for 0.3 s")
            #expect(server.connections >= 2)
        }
        #expect(time >= 0.6)
        #expect(notes.all.first?.hasPrefix("no answer for 0.3 s; ") == true)
    }

    @Test func `the client waits for a server that has reason to be silent`() throws {
        let server = ScriptedServer { connection, _ in
            _ = connection.readRequest()
            for _ in 0..<40 { pauseBriefly() }
            connection.answer(200, [7])
        }
        defer { server.stop() }
        let transport = try makeTransport(server.base) { $0.retrySeconds = 0 }
        let body = ResponseBody(limit: 1)
        var request = HTTPRequest(.get, "/", silence: 0.3)
        request.mayWait = { true }
        #expect(try transport.send(request, "ask", into: body).status == 200)
        #expect(server.requests == 1 && [UInt8](body.bytes) == [7])
    }

    @Test func `an answer that stalls is a timeout`() throws {
        let (error, server) = try error(silence: 2, retrySeconds: 0) { connection, _ in
            _ = connection.readRequest()
            connection.write(ScriptedConnection.head(length: 100) + [1, 2, 3])
            connection.waitForEnd()
        }
        #expect(error?.reason == "the answer stopped for 2 s")
        #expect(server.requests == 1)
    }

    @Test func `a server that stops reading is a timeout`() throws {
        let (error, server) = try error(
            silence: 0.3, body: [UInt8](repeating: 1, count: 32 << 20), retrySeconds: 0
        ) { connection, _ in
            _ = connection.readHead()
            connection.waitWithoutReading()
        }
        #expect(error?.reason == "no answer for 0.3 s")
        #expect(server.requests == 1)
    }

    private static let slowBody = [UInt8](repeating: 7, count: 120)

    @Test func `an answer that comes byte by byte is accepted if it may be slow`() throws {
        let server = ScriptedServer { connection, _ in
            _ = connection.readRequest()
            connection.write(ScriptedConnection.head(length: Self.slowBody.count))
            for byte in Self.slowBody {
                connection.write([byte])
                pauseBriefly()
            }
            connection.waitForEnd()
        }
        defer { server.stop() }
        let transport = try makeTransport(server.base)
        let body = ResponseBody(limit: Self.slowBody.count)
        var request = HTTPRequest(.get, "/", silence: 3, isRetried: false)
        request.leastRate = 1
        let start = ContinuousClock.now
        #expect(try transport.send(request, "ask", into: body).status == 200)
        #expect([UInt8](body.bytes) == Self.slowBody)
        // Longer than the server may be silent.
        #expect(ContinuousClock.now - start > .seconds(3))
    }

    /// Bytes that a server sends one after the other without end, never silent for long.
    enum Drip: String, CaseIterable {
        case body
        case head
        case interim
        case chunk

        var start: [UInt8] {
            switch self {
            case .body: ScriptedConnection.head(length: 100_000)
            case .head: Array("HTTP/1.1 200 X\r\nX-A: ".utf8)
            case .interim: Array("HTTP/1.1 103 Early Hints\r\nX-A: ".utf8)
            case .chunk: FailureTests.chunked + Array("1;".utf8)
            }
        }

        /// A chunk's extension comes fast enough, and is not a byte of the answer.
        var piece: [UInt8] { [UInt8](repeating: 0x61, count: self == .chunk ? 16 << 10 : 1) }
    }

    @Test(arguments: Drip.allCases)
    func `a server that sends a byte now and then does not hold a client forever`(drip: Drip) throws
    {
        let (error, server) = try error(silence: 2, retrySeconds: 0) { connection, _ in
            _ = connection.readRequest()
            guard connection.write(drip.start) else { return }
            // Longer than the test waits; it ends with the connection.
            for _ in 0..<1000 {
                guard connection.write(drip.piece) else { return }
                pauseBriefly()
            }
        }
        #expect(error?.kind == .network && error?.reason.contains("too slowly") == true)
        #expect(server.requests == 1)
    }

    @Test(arguments: [
        "HTTP/1.1 200 X\r\nX-A: ", "HTTP/1.1 103 Early Hints\r\nX-A: ",
        "HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n1;",
        "HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-A: ",
    ])
    func `only bytes of the body are progress of an answer that may be slow`(start: String) throws {
        let server = ScriptedServer { connection, _ in
            _ = connection.readRequest()
            guard connection.write(start) else { return }
            for _ in 0..<1000 {
                guard connection.write("a") else { return }
                pauseBriefly()
            }
        }
        defer { server.stop() }
        let transport = try makeTransport(server.base) { $0.retrySeconds = 0 }
        let body = ResponseBody(limit: 1)
        var request = HTTPRequest(.get, "/", silence: 2, isRetried: false)
        // A byte of the body is worth half a second.
        request.leastRate = 2
        let error = failure { () throws(IOError) in
            let response = try transport.send(request, "ask", into: body)
            return Answer(status: response.status, contentType: response.contentType, body: [])
        }
        #expect(error?.kind == .network && error?.reason.contains("too slowly") == true)
    }

    @Test func `an answer in small pieces that add up is accepted`() throws {
        let server = ScriptedServer { connection, _ in
            _ = connection.readRequest()
            connection.write(ScriptedConnection.head(length: 12_000))
            for _ in 0..<120 {
                connection.write([UInt8](repeating: 7, count: 100))
                pauseBriefly()
            }
        }
        defer { server.stop() }
        let transport = try makeTransport(server.base)
        let answer = try transport.call(silence: 3, isRetried: false)
        #expect(answer.body.count == 12_000)
    }

    @Test func `a body that only the kernel still sends is no timeout`() throws {
        // It fits into the kernel's buffers at once, and the server takes four seconds for it.
        let server = ScriptedServer(receiveBuffer: 256 << 10) { connection, _ in
            guard connection.readHead() != nil else { return }
            var left = 2 << 20
            while left > 0 {
                let count = connection.read(min(left, 1 << 15)).count
                if count == 0 { return }
                left -= count
                for _ in 0..<2 { pauseBriefly() }
            }
            connection.answer(200, [1])
            connection.waitForEnd()
        }
        defer { server.stop() }
        let transport = try makeTransport(server.base)
        let body = [UInt8](repeating: 1, count: 2 << 20)
        let time = try seconds {
            let answer = try transport.call(.post, body: body, silence: 3, isRetried: false)
            #expect(answer.body == [1])
        }
        #expect(time > 3)
    }

    @Test func `a cancellation cuts the time between attempts short`() throws {
        let cancel = Flag()
        let (error, _) = try error(cancel: cancel) { connection, _ in
            _ = connection.readRequest()
            after(0.5) { cancel.set() }
        }
        #expect(error?.kind == .cancelled)
    }

    @Test func `a running request ends after the grace time`() throws {
        let cancel = Flag()
        var outcome: IOError?
        let time = try seconds {
            outcome = try error(cancel: cancel) { connection, _ in
                after(0.1) { cancel.set() }
                connection.waitForEnd()
            }.error
        }
        #expect(outcome?.kind == .cancelled && outcome?.reason == "cancelled")
        #expect(time >= 0.4)
    }

    @Test func `within the grace time a running request finishes, and a cleanup request is sent`()
        throws
    {
        let cancel = Flag()
        let server = ScriptedServer { connection, _ in
            connection.serve { _ in
                cancel.set()
                for _ in 0..<10 { pauseBriefly() }
                return [1]
            }
        }
        defer { server.stop() }
        let transport = try makeTransport(server.base, cancel: cancel)
        #expect(try transport.call().body == [1])
        #expect(cancel.isSet)
        #expect(try transport.call(.delete).body == [1])
    }
}
