// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockClient
import LinuxIO
import TestSupport
import Testing

/// Trying again, against servers that fail.
@Suite(.timeLimit(.minutes(60))) struct RetryTests {
    /// A server whose first answers are given, and then 200 with one byte.
    private func server(
        first answers: [(status: Int, type: String, extra: String)]
    ) -> ScriptedServer {
        ScriptedServer { connection, number in
            if number < answers.count, connection.readRequest() != nil {
                let (status, type, extra) = answers[number]
                connection.write(
                    "HTTP/1.1 \(status) X\r\nContent-Type: \(type)\r\n\(extra)"
                        + "Connection: close\r\nContent-Length: 4\r\n\r\noops")
            } else {
                connection.serve { _ in [1] }
            }
        }
    }

    @Test(arguments: [429, 500, 502, 503, 504])
    func `a transient answer is fetched again`(status: Int) throws {
        let server = server(first: [(status, "text/html", ""), (status, "text/html", "")])
        defer { server.stop() }
        let notes = Notes()
        let answer = try makeTransport(server.base, notes: notes).call(.post, body: [1, 2, 3])
        #expect(answer.status == 200 && answer.body == [1])
        #expect(server.requests == 3 && notes.all.count == 2)
        #expect(
            notes.all[0].hasPrefix("the server answers HTTP \(status); trying again in 0"))
    }

    @Test(arguments: [(500, "application/problem+json"), (404, "text/html"), (403, "text/html")])
    func `an answer that says what is wrong is final`(status: Int, type: String) throws {
        let server = server(first: [(status, type, "")])
        defer { server.stop() }
        let answer = try makeTransport(server.base).call()
        #expect(answer == Answer(status: status, contentType: type, body: [UInt8]("oops".utf8)))
        #expect(server.requests == 1)
    }

    @Test func `the client waits as long as Retry-After says`() throws {
        let server = server(first: [(503, "text/html", "Retry-After: 1\r\n")])
        defer { server.stop() }
        let transport = try makeTransport(server.base)
        let time = try seconds {
            let answer = try transport.call()
            #expect(answer.status == 200)
        }
        #expect(time >= 1)
    }

    @Test func `a transient answer that stays is returned, and later requests fail at once`() throws
    {
        let server = server(first: .init(repeating: (503, "text/html", ""), count: 100))
        defer { server.stop() }
        let transport = try makeTransport(server.base) { $0.retrySeconds = 0.5 }
        var answer: Answer?
        let time = try seconds { answer = try transport.call() }
        #expect(answer?.status == 503 && answer?.body == [UInt8]("oops".utf8))
        #expect(time >= 0.5 && server.requests >= 3)
        let before = server.connections
        let error = failure { () throws(IOError) in try transport.call() }
        #expect(error?.reason == "the server answers HTTP 503")
        #expect(server.connections == before)
    }

    @Test(arguments: ["closed", "reset", "in the head", "after an interim answer"])
    func `a lost connection is made again`(how: String) throws {
        let server = ScriptedServer { connection, number in
            guard number < 2 else { return connection.serve { _ in [1] } }
            _ = connection.readRequest()
            if how == "reset" { connection.reset() }
            if how == "after an interim answer" { connection.write("HTTP/1.1 100 X\r\n\r\n") }
            if how == "in the head" { connection.write("HTTP/1.1 200 X\r\nContent-Le") }
        }
        defer { server.stop() }
        #expect(try makeTransport(server.base).call(.post, body: [1]).body == [1])
        #expect(server.requests == 3)
    }

    @Test func `before the first success a refused connection is an error at once`() throws {
        let server = ScriptedServer { _, _ in }
        server.stop()
        let notes = Notes()
        let transport = try makeTransport(server.base, notes: notes)
        let error = failure { () throws(IOError) in try transport.call() }
        #expect(error?.reason == "connection refused")
        #expect(notes.all.isEmpty)
    }

    @Test func `a host name that does not exist is an error at once`() throws {
        let notes = Notes()
        let transport = try makeTransport("http://no-such-host.invalid:80", notes: notes)
        let error = failure { () throws(IOError) in try transport.call() }
        #expect(error?.kind == .network)
        #expect(error?.reason.isEmpty == false && notes.all.isEmpty)
    }

    @Test func `after the first success the client waits for a server that is away for a moment`()
        throws
    {
        let server = ScriptedServer { connection, _ in connection.serve { _ in [1] } }
        defer { server.stop() }
        let notes = Notes()
        let transport = try makeTransport(server.base, notes: notes)
        _ = try transport.call()
        server.stop()
        after(0.6) { server.restart() }
        #expect(try transport.call().body == [1])
        #expect(notes.all.contains { $0.hasPrefix("connection refused; trying again in ") })
    }

    @Test func `a server that stays away ends the transport`() throws {
        let server = ScriptedServer { connection, _ in connection.serve { _ in [1] } }
        let notes = Notes()
        let transport = try makeTransport(server.base, notes: notes) { $0.retrySeconds = 0.5 }
        _ = try transport.call()
        server.stop()
        var error: IOError?
        let time = seconds { error = failure { () throws(IOError) in try transport.call() } }
        #expect(error?.reason == "connection refused")
        #expect(time >= 0.5)
        let before = notes.all.count
        #expect(before >= 2)
        server.restart()
        defer { server.stop() }
        // The server is back, but nothing is asked of it any more.
        #expect(failure { () throws(IOError) in try transport.call() } == error)
        #expect(notes.all.count == before && server.connections == 1)
    }

    @Test func `without a retry time the first failure is final`() throws {
        let server = ScriptedServer { connection, _ in _ = connection.readRequest() }
        defer { server.stop() }
        let notes = Notes()
        let transport = try makeTransport(server.base, notes: notes) { $0.retrySeconds = 0 }
        #expect(failure { () throws(IOError) in try transport.call() }?.kind == .network)
        #expect(server.requests == 1 && notes.all.isEmpty)
    }

    @Test func `a request that must not be repeated is sent once, even over a kept connection`()
        throws
    {
        let server = ScriptedServer { connection, number in
            // What comes second is read and dropped, as by a server that dies with it.
            _ = connection.readRequest()
            guard number == 0 else { return }
            connection.answer()
            _ = connection.readRequest()
        }
        defer { server.stop() }
        let transport = try makeTransport(server.base)
        _ = try transport.call()
        let error = failure { () throws(IOError) in
            try transport.call(.post, body: [1], isRetried: false)
        }
        #expect(error?.kind == .network)
        #expect(server.requests == 2)
    }

    @Test func `a kept connection that the server closed is no failure`() throws {
        let server = ScriptedServer { connection, _ in
            _ = connection.readRequest()
            connection.answer(200, [1])
        }
        defer { server.stop() }
        let notes = Notes()
        let transport = try makeTransport(server.base, notes: notes)
        for _ in 0..<5 { #expect(try transport.call(.post, body: [1]).body == [1]) }
        #expect(notes.all.isEmpty)
    }
}
