// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import LinuxIO
import Synchronization
import TestSupport
import Testing

@testable import BlockClient

/// `--bwlimit`.
@Suite(.serialized, .timeLimit(.minutes(60))) struct RateLimiterTests {
    @Test(arguments: [1, 2, 16], [2000, 16_384, 1 << 20])
    func `ten seconds carry what the rate allows, within 5 %`(threads: Int, portion: Int) {
        let rate = 5_000_000
        let start = ContinuousClock.now
        var bucket = TokenBucket(bytesPerSecond: rate, now: start)
        var wake = (0..<threads).map { start + .microseconds(10 * $0) }
        var random = SystemRandomNumberGenerator()
        var total = 0
        let end = start + .seconds(10)
        while let next = wake.indices.min(by: { wake[$0] < wake[$1] }), wake[next] < end {
            let through = bucket.take(portion, now: wake[next])
            if through <= end { total += portion }
            // Short sleeps are left out; the others last a little too long.
            if through - wake[next] >= .milliseconds(1) {
                wake[next] = through + .microseconds(Int.random(in: 60...2000, using: &random))
            }
        }
        let slack = portion > 16_384 ? threads * portion : 0
        #expect(total <= 10 * rate * 105 / 100 && total + slack >= 10 * rate * 95 / 100)
    }

    @Test func `unused time of the rate limit is lost, but for the burst`() {
        let start = ContinuousClock.now
        var bucket = TokenBucket(bytesPerSecond: 1000, now: start)
        let later = start + .seconds(100)
        #expect(bucket.take(1000, now: later) == later + .milliseconds(950))
        #expect(bucket.take(1000, now: later) == later + .milliseconds(1950))
    }

    @Test func `an answer of 1 MiB at 2 MB/s takes half a second`() throws {
        let server = ScriptedServer { connection, _ in
            connection.serve { _ in [UInt8](repeating: 1, count: 1 << 20) }
        }
        defer { server.stop() }
        let transport = try makeTransport(server.base) { $0.bytesPerSecond = 2_000_000 }
        let time = try seconds {
            let answer = try transport.call()
            #expect(answer.body.count == 1 << 20)
        }
        #expect(time >= 0.45 && time < 10)
    }

    @Test func `a request of 1 MiB at 2 MB/s takes half a second, and arrives whole`() throws {
        let server = ScriptedServer { connection, _ in connection.serve { $0.body } }
        defer { server.stop() }
        let content = (0..<1 << 20).map { UInt8(truncatingIfNeeded: $0 &* 31 >> 7) }
        let transport = try makeTransport(server.base) { $0.bytesPerSecond = 2_000_000 }
        // There and back again: both directions count.
        let time = try seconds {
            let answer = try transport.call(.post, body: content)
            #expect(answer.body == content)
        }
        #expect(time >= 0.95 && time < 15)
    }

    @Test func `an upload that starts again is whole`() throws {
        let server = ScriptedServer { connection, number in
            if number == 0 {
                _ = connection.readHead()
                _ = connection.read(1000)
            } else {
                connection.serve { $0.body }
            }
        }
        defer { server.stop() }
        let content = (0..<300_000).map { UInt8(truncatingIfNeeded: $0 &* 31 >> 7) }
        let transport = try makeTransport(server.base) { $0.bytesPerSecond = 5_000_000 }
        #expect(try transport.call(.post, body: content).body == content)
    }

    @Test(arguments: [(1, 200), (16, 200), (16, 30_000), (4, 100_000)])
    func `threads share the rate limit`(threads: Int, size: Int) throws {
        let server = ScriptedServer { connection, _ in
            connection.serve { _ in [UInt8](repeating: 1, count: size) }
        }
        defer { server.stop() }
        let rate = 600_000
        let transport = try makeTransport(server.base) { $0.bytesPerSecond = rate }
        let isEnough = Flag()
        let time = seconds {
            after(1.5) { isEnough.set() }
            Threads.start(count: threads) { _ in
                while !isEnough.isSet { _ = try? transport.call() }
            }.wait()
        }
        let total = transport.traffic.sent + transport.traffic.received
        #expect(Double(total) <= Double(rate) * (time + 0.05) + 2000, "\(time) s")
        // Sixteen threads that each had a sixteenth of the limit would come to less; so does no machine
        // that is merely busy.
        if !isSanitized { #expect(Double(total) >= Double(rate) * time * 0.1, "\(time) s") }
    }

    @Test(arguments: [HTTPRequest.Method.get, .post])
    func `a cancellation cuts a long wait for the rate limit short`(method: HTTPRequest.Method)
        throws
    {
        let server = ScriptedServer { connection, _ in
            connection.serve { _ in [UInt8](repeating: 1, count: 1 << 20) }
        }
        defer { server.stop() }
        let cancel = Flag()
        let transport = try makeTransport(server.base, cancel: cancel) {
            $0.bytesPerSecond = 5000
            $0.graceSeconds = 0.2
        }
        after(0.2) { cancel.set() }
        let body = method == .post ? [UInt8](repeating: 1, count: 1 << 20) : nil
        let time = seconds {
            let error = failure { () throws(IOError) in try transport.call(method, body: body) }
            #expect(error?.kind == .cancelled)
        }
        #expect(time < 20)
    }

    @Test func `waiting for the rate limit is no timeout`() throws {
        let server = ScriptedServer { connection, _ in connection.serve { $0.body } }
        defer { server.stop() }
        let transport = try makeTransport(server.base) { $0.bytesPerSecond = 5000 }
        let content = [UInt8](repeating: 1, count: 16_000)
        let answer = try transport.call(.post, body: content, silence: 2, isRetried: false)
        #expect(answer.body == content)
    }
}
