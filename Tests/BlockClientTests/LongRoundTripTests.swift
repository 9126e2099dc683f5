// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Glibc
import LinuxIO
import TestSupport
import Testing

@testable import BlockClient

/// The round trip of a line, as requests show it.
@Suite(.blocking, .timeLimit(.minutes(60))) struct LongRoundTripTests {
    /// A server that waits for some milliseconds before each answer.
    private func server(_ delays: [UInt32], status: Int = 200) -> ScriptedServer {
        ScriptedServer { connection, _ in
            for (index, delay) in delays.enumerated() {
                guard connection.readRequest() != nil else { return }
                usleep(delay * 1000)
                let isLast = index == delays.count - 1
                connection.write(
                    "HTTP/1.1 \(isLast ? status : 200) X\r\nContent-Length: 0\r\n\r\n")
            }
        }
    }

    @Test func `the shortest answer decides whether the round trip is long`() throws {
        let server = server([800, 40])
        defer { server.stop() }
        let transport = try makeTransport(server.base)
        #expect(transport.longRoundTrip == nil)
        _ = try transport.call()
        #expect(transport.longRoundTrip ?? 0 >= 0.8)
        _ = try transport.call()
        let shorter = try #require(transport.longRoundTrip)
        #expect(shorter >= 0.04 && shorter < 0.8)
    }

    @Test func `a short line has no long round trip`() throws {
        let server = server([UInt32](repeating: 0, count: 100))
        defer { server.stop() }
        let transport = try makeTransport(server.base)
        for _ in 0..<100 { _ = try transport.call() }
        #expect(transport.longRoundTrip == nil)
    }

    @Test(arguments: [(1 << 20, false), (64 << 20, true)])
    func `with a low rate limit a line does not count as long`(rate: Int, isLong: Bool) throws {
        let server = server([40])
        defer { server.stop() }
        let transport = try makeTransport(server.base) { $0.bytesPerSecond = rate }
        _ = try transport.call()
        #expect((transport.longRoundTrip != nil) == isLong)
    }

    @Test(arguments: [429, 503])
    func `a server with too many requests gets no more connections`(status: Int) throws {
        let server = server([40, 40], status: status)
        defer { server.stop() }
        let transport = try makeTransport(server.base) { $0.retrySeconds = 0 }
        _ = try transport.call()
        #expect(transport.longRoundTrip != nil)
        #expect(try transport.call().status == status)
        #expect(transport.longRoundTrip == nil)
    }

    @Test func `a connection that was made ahead serves a later request`() throws {
        let server = server([40, 40, 40, 40])
        defer { server.stop() }
        let transport = try makeTransport(server.base)
        _ = try transport.call()
        transport.connectAhead(HTTPRequest(.get, "/"), into: ResponseBody(limit: 100))
        #expect(server.connections == 2)
        Threads.start(count: 2) { _ in
            #expect(throws: Never.self) { try transport.call() }
        }.wait()
        #expect(server.connections == 2)
        #expect(server.requests == 4)
    }

    @Test func `a connection that cannot be made ahead changes nothing`() throws {
        let server = server([40, 40])
        defer { server.stop() }
        let transport = try makeTransport(server.base)
        _ = try transport.call()
        server.stop()
        transport.connectAhead(HTTPRequest(.get, "/"), into: ResponseBody(limit: 100))
        server.restart()
        #expect(try transport.call().status == 200)
    }
}
