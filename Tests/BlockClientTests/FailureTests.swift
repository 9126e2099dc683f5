// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockClient
import Testing

/// Servers that do not speak HTTP, that fall silent, and callers that want to end.
@Suite(.timeLimit(.minutes(30))) struct FailureTests {
    private func error(
        silence: Double = 60, body: [UInt8]? = nil, retrySeconds: Double = 30,
        cancel: Flag = Flag(), notes: Notes = Notes(), _ script: @escaping ScriptedServer.Script
    ) throws -> (error: HTTPError?, server: ScriptedServer) {
        let server = ScriptedServer(script)
        defer { server.stop() }
        let transport = try makeTransport(server.base, notes: notes, cancel: cancel) {
            $0.graceSeconds = 0.3
            $0.retrySeconds = retrySeconds
        }
        let error = failure { () throws(HTTPError) in
            try transport.call(body == nil ? .get : .post, body: body, silence: silence)
        }
        return (error, server)
    }

    @Test(arguments: ["SSH-2.0-OpenSSH_9.2\r\n", "\0\u{1}\u{2}\u{3}garbage without end"])
    func `garbage is no answer, and not asked for again`(text: String) throws {
        let (error, server) = try error { connection, _ in
            _ = connection.readRequest()
            connection.write(text)
        }
        #expect(error == HTTPError(.protocolViolation, "the server does not speak HTTP"))
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
        #expect(error?.kind == .protocolViolation && error?.reason.contains("header") == true)
        #expect(server.requests == 1)
    }

    @Test func `interim answers without end are cut off`() throws {
        let (error, _) = try error { connection, _ in
            _ = connection.readRequest()
            while connection.write("HTTP/1.1 100 Continue\r\n\r\n") {}
        }
        #expect(error?.kind == .protocolViolation)
    }

    @Test(arguments: ["http:/x", "ftp://x:80", "http://", "http://x:80/path", "x:80", ""])
    func `what is no server's address is refused`(base: String) {
        #expect(throws: HTTPError.self) { _ = try makeTransport(base) }
    }

    @Test func `a server without TLS is told as such`() throws {
        let server = ScriptedServer { connection, _ in
            _ = connection.read(100)
            connection.write("HTTP/1.1 400 X\r\n\r\n")
        }
        defer { server.stop() }
        let transport = try makeTransport("https://127.0.0.1:\(server.port)")
        let error = failure { () throws(HTTPError) in try transport.call() }
        #expect(error?.kind == .unreachable && error?.reason.contains("does not speak TLS") == true)
        #expect(server.connections == 1)
    }

    @Test func `no answer is a timeout, and tried again`() throws {
        let notes = Notes()
        let time = try seconds {
            let (error, server) = try error(silence: 0.3, retrySeconds: 0, notes: notes) {
                connection, _ in connection.waitForEnd()
            }
            #expect(error == HTTPError(.timeout, "no answer for 0.3 s"))
            #expect(server.connections == 3)
        }
        #expect(time >= 0.9)
        #expect(notes.all.count == 2 && notes.all.first?.hasPrefix("no answer for 0.3 s; ") == true)
    }

    @Test func `a server that has reason to be silent is waited for`() throws {
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
        #expect(try transport.send(request, into: body).status == 200)
        #expect(server.requests == 1 && [UInt8](body.bytes) == [7])
    }

    @Test func `an answer that stalls is a timeout`() throws {
        let (error, server) = try error(silence: 0.3, retrySeconds: 0) { connection, _ in
            _ = connection.readRequest()
            connection.write(Connection.head(length: 100) + [1, 2, 3])
            connection.waitForEnd()
        }
        #expect(error == HTTPError(.timeout, "the answer stopped for 0.3 s"))
        #expect(server.requests == 3)
    }

    @Test func `a server that stops reading is a timeout`() throws {
        let (error, server) = try error(
            silence: 0.3, body: [UInt8](repeating: 1, count: 32 << 20), retrySeconds: 0
        ) { connection, _ in
            _ = connection.readHead()
            connection.waitWithoutReading()
        }
        #expect(error == HTTPError(.timeout, "no answer for 0.3 s"))
        #expect(server.requests == 3)
    }

    @Test func `an answer that comes byte by byte is none`() throws {
        let server = ScriptedServer { connection, _ in
            _ = connection.readRequest()
            for byte in Connection.head(length: 2) + [1, 2] {
                connection.write([byte])
                pauseBriefly()
            }
            connection.waitForEnd()
        }
        defer { server.stop() }
        let transport = try makeTransport(server.base)
        let time = try seconds {
            let answer = try transport.call(silence: 1, isRetried: false)
            #expect(answer.body == [1, 2])
        }
        #expect(time > 1)
    }

    @Test func `a body that only the kernel still sends is no silence`() throws {
        // It fits into the kernel's buffers at once, and the server takes two seconds for it.
        let server = ScriptedServer(receiveBuffer: 256 << 10) { connection, _ in
            guard connection.readHead() != nil else { return }
            var left = 2 << 20
            while left > 0 {
                let count = connection.read(min(left, 1 << 15)).count
                if count == 0 { return }
                left -= count
                pauseBriefly()
            }
            connection.answer(200, [1])
            connection.waitForEnd()
        }
        defer { server.stop() }
        let transport = try makeTransport(server.base)
        let body = [UInt8](repeating: 1, count: 2 << 20)
        let time = try seconds {
            let answer = try transport.call(.post, body: body, silence: 0.5, isRetried: false)
            #expect(answer.body == [1])
        }
        #expect(time > 1)
    }

    @Test func `a wish to end cuts the time between attempts short`() throws {
        let cancel = Flag()
        let (error, _) = try error(cancel: cancel) { connection, _ in
            _ = connection.readRequest()
            after(0.5) { cancel.set() }
        }
        #expect(error?.kind == .cancelled)
    }

    @Test func `a request in work is ended after the time of grace`() throws {
        let cancel = Flag()
        var outcome: HTTPError?
        let time = try seconds {
            outcome = try error(cancel: cancel) { connection, _ in
                after(0.1) { cancel.set() }
                connection.waitForEnd()
            }.error
        }
        #expect(outcome == HTTPError(.cancelled, "cancelled"))
        #expect(time >= 0.4)
    }

    @Test func `within it, a request in work is finished, and one for cleaning up is sent`() throws
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
