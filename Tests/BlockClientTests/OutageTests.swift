// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockClient
import Glibc
import LinuxIO
import Synchronization
import TestSupport
import Testing

/// Links that vanish for a while, for good, or without a word.
@Suite(.blocking, .timeLimit(.minutes(60))) struct OutageTests {
    private final class Reports: Sendable {
        private let values = Mutex<[Outage]>([])
        var all: [Outage] { values.withLock { $0 } }
        func add(_ outage: Outage) { values.withLock { $0.append(outage) } }
    }

    private static func server() -> ScriptedServer {
        ScriptedServer { connection, _ in connection.serve { [UInt8($0.body.count & 0xFF)] } }
    }

    @Test func `a link that is away for half a minute ends no request that has a minute`() throws {
        let server = Self.server()
        defer { server.stop() }
        let reports = Reports()
        let transport = try makeTransport(server.base) {
            $0.retrySeconds = 60
            $0.report = { reports.add($0) }
        }
        _ = try transport.call()
        server.stop()
        after(33) { server.restart() }
        #expect(try transport.call(.post, body: [1, 2, 3]).body == [3])
        let all = reports.all
        #expect(all.count == 2, "\(all)")
        guard case .began(let begin, "connection refused")? = all.first,
            case .ended(let end)? = all.last
        else { Issue.record("\(all)"); return }
        #expect(begin >= 5 && begin < 15 && end >= 32)
    }

    @Test func `a link that stays away ends a request soon after the retry time`() throws {
        let server = Self.server()
        let transport = try makeTransport(server.base) { $0.retrySeconds = 3 }
        _ = try transport.call()
        server.stop()
        let time = seconds {
            let error = failure { () throws(IOError) in try transport.call() }
            #expect(error?.reason == "connection refused")
        }
        #expect(time >= 3 && time < 5, "\(time)")
    }

    @Test func `so does a host that answers no connection, though one may take longer`() throws {
        // The queue of a listener that accepts nothing has room for two connections.
        let listener = try Loopback.listen(backlog: 0)
        let port = try Loopback.port(of: listener)
        let transport = try makeTransport("http://127.0.0.1:\(port)") {
            $0.connectSeconds = 3
            $0.retrySeconds = 1
        }
        let first = Threads.start(count: 1, orInline: false) { _ in _ = try? transport.call() }
        let served = StreamSocket(try Loopback.accept(listener))
        _ = try HTTPMessage(from: served)
        try served.send(ScriptedConnection.head(length: 0))
        first.wait()
        served.interrupt()
        let fillers = try (0..<4).map { _ in
            StreamSocket(try Loopback.connect(port: port, isBlocking: false))
        }
        usleep(100_000)
        let time = seconds {
            let error = failure { () throws(IOError) in try transport.call() }
            #expect(error?.reason.hasPrefix("no connection within ") == true)
        }
        // The first attempt has its three seconds, the last one no more than what is left.
        #expect(time >= 4 && time < 6, "\(time)")
        withExtendedLifetime(fillers) {}
    }

    @Test(arguments: [0, 16 << 20])
    func `a connection whose packets vanish is replaced, also within an upload`(count: Int) throws {
        let server = Self.server()
        defer { server.stop() }
        let proxy = try FaultProxy(upstreamPort: server.port)
        let notes = Notes()
        let transport = try makeTransport("http://127.0.0.1:\(proxy.port)", notes: notes) {
            // The upload takes a second.
            $0.bytesPerSecond = 16 << 20
        }
        _ = try transport.call()
        if count == 0 {
            proxy.forgetConnections()
        } else {
            after(0.3) { proxy.forgetConnections() }
        }
        let body = [UInt8](repeating: 1, count: count)
        let answer = try transport.call(.post, body: body, silence: 1)
        #expect(answer.body == [0] && proxy.counters.connections == 2)
        #expect(notes.all.count == 1, "\(notes.all)")
        #expect(notes.all.first?.hasPrefix("no answer for 1 s; ") == true, "\(notes.all)")
    }

    @Test func `a cancellation during an outage ends at once, and so does cleaning up`() throws {
        let server = Self.server()
        defer { server.stop() }
        let proxy = try FaultProxy(upstreamPort: server.port)
        let cancel = Flag()
        let transport = try makeTransport("http://127.0.0.1:\(proxy.port)", cancel: cancel) {
            $0.retrySeconds = 60
        }
        _ = try transport.call()
        proxy.isStalled = true
        let cancelled = Mutex(ContinuousClock.now)
        // The first attempt fails after half a second, the second one is in work.
        after(1) {
            cancelled.withLock { $0 = .now }
            cancel.set()
        }
        let error = failure { () throws(IOError) in try transport.call(silence: 0.5) }
        #expect(error?.kind == .cancelled)
        #expect(failure { () throws(IOError) in try transport.call(.delete) } != nil)
        let time = ContinuousClock.now - cancelled.withLock { $0 }
        #expect(time < .seconds(3))
    }
}
