// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Glibc
import LinuxIO
import Synchronization
import SystemPackage
import TestSupport
import Testing

/// The proxy as a bad network.
@Suite(.blocking, .timeLimit(.minutes(60))) struct FaultProxyTests {
    private let server: ScriptedServer
    private let proxy: FaultProxy

    init() throws {
        server = ScriptedServer.echo()
        proxy = try FaultProxy(upstreamPort: server.port)
    }

    /// Sends bytes and receives until as many have come back, or the connection is over.
    private func roundTrip(_ bytes: [UInt8], _ connection: StreamSocket) -> [UInt8] {
        let sender = SendingThread(bytes, connection)
        var received: [UInt8] = []
        while received.count < bytes.count, let more = try? connection.receive(), !more.isEmpty {
            received += more
        }
        connection.interrupt()
        sender.wait()
        return received
    }

    @Test func `without faults the proxy passes and counts every byte of many connections`() throws
    {
        var generator = SeededGenerator(seed: 2)
        let content = generator.bytes(1 << 20)
        for connection in try (0..<32).map({ _ in try proxy.connect() }) {
            #expect(roundTrip(content, connection) == content)
        }
        var counters = ProxyCounters()
        (counters.bytesToServer, counters.bytesToClient) = (32 << 20, 32 << 20)
        counters.connections = 32
        #expect(proxy.counters == counters)
    }

    @Test func `a large stream passes through queues that are small`() throws {
        let proxy = try FaultProxy(upstreamPort: server.port, queueLimit: 1 << 16)
        var generator = SeededGenerator(seed: 3)
        let content = generator.bytes(8 << 20)
        let connection = try StreamSocket(port: proxy.port)
        #expect(roundTrip(content, connection) == content)
    }

    @Test func `the end of one direction leaves the other open`() throws {
        let connection = try proxy.connect()
        try connection.send("to be sent back")
        connection.endSending()
        #expect(try connection.receive(count: 100) == Array("to be sent back".utf8))
    }

    @Test func `a server that is not there resets the connection`() throws {
        server.stop()
        #expect(throws: Errno.connectionReset) { try proxy.connect().receive() }
    }

    @Test func `new connections go to the new upstream port`() throws {
        let other = ScriptedServer.streams { (connection) throws(Errno) in
            try connection.send("other")
        }
        let old = try proxy.connect()
        #expect(roundTrip([1], old) == [1])
        proxy.upstreamPort = other.port
        #expect(try proxy.connect().receive(count: 5) == Array("other".utf8))
    }

    @Test func `a delay of the proxy makes a round trip last twice as long`() throws {
        proxy.delay = 0.1
        let connection = try proxy.connect()
        for _ in 0..<2 {
            let start = ContinuousClock.now
            try connection.send("ping")
            #expect(try connection.receive(count: 4).count == 4)
            #expect(ContinuousClock.now - start >= .milliseconds(200))
        }
    }

    @Test func `a delay of the proxy is latency, not less bandwidth`() throws {
        proxy.delay = 1.5
        var generator = SeededGenerator(seed: 4)
        let content = generator.bytes(16 << 20)
        let connection = try proxy.connect()
        let start = ContinuousClock.now
        #expect(roundTrip(content, connection) == content)
        // The 16 chunks or more, one after the other, would take 24 seconds.
        #expect(ContinuousClock.now - start < .seconds(23))
    }

    @Test func `a rate of the proxy is that of all connections together, each way`() throws {
        proxy.bytesPerSecond = 4 << 20
        let connections = try (0..<2).map { _ in try proxy.connect() }
        let start = ContinuousClock.now
        let sums = Mutex(0)
        Threads.start(count: 2) { [self] index in
            let back = roundTrip([UInt8](repeating: 1, count: 2 << 20), connections[index])
            sums.withLock { $0 += back.count }
        }.wait()
        let time = ContinuousClock.now - start
        #expect(sums.withLock { $0 } == 4 << 20)
        // Both ways at the same time take little more than one.
        #expect(time > .milliseconds(900) && time < .milliseconds(1900), "\(time)")
    }

    @Test func `cuts come after as many bytes as requested, with resets and in order`() throws {
        proxy.cutEvery = 100_000...200_000
        proxy.cutsLeft = 20
        var failures: [Errno?] = []
        for cut in 1...20 {
            let before = proxy.counters
            let connection = try proxy.connect()
            let sender = SendingThread([UInt8](repeating: 1, count: 1 << 20), connection)
            failures.append(Self.failure(of: connection))
            connection.interrupt()
            sender.wait()
            let after = proxy.counters
            #expect(after.cuts == cut)
            let carried =
                after.bytesToServer + after.bytesToClient - before.bytesToServer
                - before.bytesToClient
            #expect((100_000...200_000).contains(carried))
        }
        #expect(Set(failures).isSuperset(of: [nil, .connectionReset]))
        let content = [UInt8](repeating: 2, count: 1 << 20)
        #expect(roundTrip(content, try proxy.connect()) == content)
        #expect(proxy.cutsLeft == 0)
    }

    /// What ends a connection whose bytes nobody wants; `nil` for its end in order.
    private static func failure(of connection: StreamSocket) -> Errno? {
        do throws(Errno) {
            while true {
                if try connection.receive().isEmpty { return nil }
            }
        } catch { return error }
    }

    @Test(arguments: [ProxyDirection.toServer, .toClient])
    func `corruption flips single bits beyond the headers`(direction: ProxyDirection) throws {
        proxy.corruptDirection = direction
        proxy.corruptions = 3
        let connection = try proxy.connect()
        let small = [UInt8](repeating: 0, count: FaultProxy.shortestCorruptedRead)
        for _ in 0..<4 {
            try connection.send(small)
            #expect(try connection.receive(count: small.count) == small)
        }
        #expect(proxy.counters.corruptions == 0)

        let content = [UInt8](repeating: 0, count: 4 << 20)
        let received = roundTrip(content, connection)
        let flipped = received.enumerated().filter { $0.element != 0 }
        #expect(flipped.map { $0.element.nonzeroBitCount } == [1, 1, 1])
        #expect(flipped.allSatisfy { $0.offset >= proxy.corruptAfter })
        #expect(proxy.counters.corruptions == 3)
        #expect(proxy.corruptions == 0)
    }

    @Test func `a stall holds everything until it is over`() throws {
        let connection = try proxy.connect()
        #expect(try echoed("a", connection) == "a")
        proxy.isStalled = true
        try connection.send("b")
        connection.limitWaiting(to: 0.2)
        #expect(throws: Errno.resourceTemporarilyUnavailable) { try connection.receive() }
        #expect(proxy.counters.bytesToServer == 1)
        proxy.isStalled = false
        connection.limitWaiting(to: 30)
        #expect(try connection.receive(count: 1) == Array("b".utf8))
    }

    private func echoed(_ text: String, _ connection: StreamSocket) throws -> String {
        try connection.send(text)
        return String(decoding: try connection.receive(count: text.utf8.count), as: UTF8.self)
    }

    @Test func `a stall begins after as many bytes over all connections as requested`() throws {
        proxy.stallAfter = 10
        let (first, second) = (try proxy.connect(), try proxy.connect())
        #expect(try echoed("ab", first) == "ab")
        #expect(try echoed("cd", second) == "cd")
        #expect(!proxy.isStalled)
        try first.send("efgh")
        #expect(becomesTrue { proxy.isStalled })
        first.limitWaiting(to: 0.2)
        #expect(throws: Errno.resourceTemporarilyUnavailable) { try first.receive() }
        #expect(proxy.counters.bytesToServer + proxy.counters.bytesToClient == 10)
        proxy.isStalled = false
        #expect(try first.receive(count: 4) == Array("efgh".utf8))
    }

    @Test func `a stalled proxy takes no more than its queue holds`() throws {
        let proxy = try FaultProxy(upstreamPort: server.port, queueLimit: 1 << 20)
        proxy.isStalled = true
        let connection = try StreamSocket(port: proxy.port)
        connection.limitWaiting(to: 0.5)
        #expect(throws: Errno.resourceTemporarilyUnavailable) {
            try connection.send([UInt8](repeating: 0, count: 64 << 20))
        }
    }

    @Test func `a refusing proxy closes new connections and keeps the old ones`() throws {
        let old = try proxy.connect()
        #expect(try echoed("a", old) == "a")
        proxy.isRefusing = true
        #expect(try proxy.connect().receive().isEmpty)
        #expect(try echoed("b", old) == "b")
        proxy.isRefusing = false
        #expect(try echoed("c", proxy.connect()) == "c")
        #expect(proxy.counters.refused == 1)
        #expect(proxy.counters.connections == 2)
    }

    @Test func `closing a proxy ends its connections and closes its port`() throws {
        let connection = try proxy.connect()
        #expect(try echoed("a", connection) == "a")
        proxy.delay = 60
        try connection.send("b")
        proxy.close()
        proxy.close()
        #expect([nil, Errno.connectionReset].contains(Self.failure(of: connection)))
        // A child of another test may hold the listening socket until its exec.
        let isRefused = becomesTrue {
            do throws(Errno) {
                _ = try StreamSocket(port: proxy.port)
                return false
            } catch { return error == .connectionRefused }
        }
        #expect(isRefused)
        #expect(proxy.counters.connections == 1)
    }
}

/// Sends while a test receives; it may fail, as connections do.
final class SendingThread: Sendable {
    private let thread: Mutex<Threads.Running?>

    init(_ bytes: [UInt8], _ connection: StreamSocket) {
        thread = Mutex(
            Threads.start(count: 1, orInline: false) { _ in try? connection.send(bytes) })
    }

    func wait() { thread.withLock({ $0.take() })?.wait() }
}
