// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import LinuxIO
import TestSupport
import Testing

@testable import BlockClient

/// Where bodies go, and what a server cannot make the client take.
@Suite(.timeLimit(.minutes(60))) struct BodyTests {
    @Test func `a body's memory grows with what came, in few steps, and never beyond the limit`() {
        let body = ResponseBody(limit: 300_000)
        #expect(body.capacity == 0 && body.bytes.isEmpty)
        let chunk = [UInt8](repeating: 7, count: 10_000)
        var capacities: Set<Int> = []
        for _ in 0..<30 {
            #expect(chunk.withUnsafeBytes { body.append($0) })
            capacities.insert(body.capacity)
        }
        #expect(capacities == [65_536, 131_072, 262_144, 300_000])
        #expect(body.bytes.count == 300_000 && body.bytes.allSatisfy { $0 == 7 })
        #expect(![1].withUnsafeBytes { body.append(UnsafeRawBufferPointer(rebasing: $0[0..<1])) })
        body.reset()
        #expect(body.bytes.isEmpty && body.capacity == 300_000)
    }

    @Test func `a body as large as the limit is taken, and one byte more is not, nor retried`()
        throws
    {
        let server = ScriptedServer { connection, _ in
            connection.serve { [UInt8](repeating: 1, count: 100_000 + $0.body.count) }
        }
        defer { server.stop() }
        let notes = Notes()
        let transport = try makeTransport(server.base, notes: notes)
        #expect(try transport.call(limit: 100_000).body.count == 100_000)
        let error = failure { () throws(IOError) in
            try transport.call(.post, body: [1], limit: 100_000)
        }
        #expect(error?.reason == "the answer is larger than 100000 bytes")
        #expect(server.requests == 2 && notes.all.isEmpty)
        #expect(try transport.call(limit: 100_000).body.count == 100_000)
    }

    @Test func `a body without end is cut off`() throws {
        let server = ScriptedServer { connection, _ in
            _ = connection.readRequest()
            connection.write("HTTP/1.1 200 X\r\n\r\n")
            while connection.write([UInt8](repeating: 1, count: 1 << 16)) {}
        }
        defer { server.stop() }
        let transport = try makeTransport(server.base)
        let error = failure { () throws(IOError) in try transport.call(limit: 1 << 20) }
        #expect(error?.kind == .network)
    }

    @Test func `a promised length allocates no memory`() throws {
        let server = ScriptedServer { connection, _ in
            _ = connection.readRequest()
            connection.write(ScriptedConnection.head(length: 1 << 40) + [1, 2, 3])
        }
        defer { server.stop() }
        let transport = try makeTransport(server.base)
        let body = ResponseBody(limit: 1 << 41)
        #expect(throws: IOError.self) {
            try transport.send(HTTPRequest(.get, "/", isRetried: false), "ask", into: body)
        }
        #expect(body.capacity == 65_536)
    }

    @Test func `an answer that was cut off is fetched again, and nothing of it remains`() throws {
        let server = ScriptedServer { connection, number in
            _ = connection.readRequest()
            if number < 2 {
                connection.write(
                    ScriptedConnection.head(length: 9000) + [UInt8](repeating: 0xAA, count: 5000))
            } else {
                connection.answer(200, [1, 2])
                connection.waitForEnd()
            }
        }
        defer { server.stop() }
        let notes = Notes()
        #expect(try makeTransport(server.base, notes: notes).call().body == [1, 2])
        #expect(server.requests == 3 && notes.all.count == 2)
        #expect(notes.all[0].hasPrefix("the answer is incomplete: "))
    }

    @Test func `a large error page with a transient status is no reason to give up`() throws {
        let server = ScriptedServer { connection, number in
            _ = connection.readRequest()
            connection.answer(number == 0 ? 503 : 200, number == 0 ? Array(0...200) : [1])
            connection.waitForEnd()
        }
        defer { server.stop() }
        #expect(try makeTransport(server.base).call(limit: 10).body == [1])
    }
}
