// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockServer
import Foundation
import Glibc
import LinuxIO
import TestSupport
import Testing
import WireProtocol

@testable import BlockServer

/// Jobs that wait for a thread.
@Suite(.blocking, .timeLimit(.minutes(30))) struct WorkQueueTests {
    /// Nothing comes after a burst, so a thread must look at all jobs that wait for their client's
    /// share.
    @Test(arguments: [4, 8]) func `no job of a burst stays without a thread`(threads: Int) throws {
        let queue = WorkQueue(threads: threads, memory: 4096)
        defer { queue.close() }
        let done = Guarded(0)
        let burst = 12
        for round in 1...3000 {
            for _ in 0..<burst { queue.add(for: "a client") { _ in done.withLock { $0 += 1 } } }
            let isDone = done.wait(until: .now + .seconds(60)) {
                $0 == round * burst ? true : nil
            }
            try #require(isDone == true, "round \(round): \(done.withLock { $0 }) jobs are done")
        }
    }

    @Test func `jobs of several clients and sessions all end`() throws {
        let queue = WorkQueue(threads: 8, memory: 4096)
        defer { queue.close() }
        let done = Guarded(0)
        for round in 1...1000 {
            for index in 0..<24 {
                queue.add(
                    isOfSession: index % 3 == 0, on: "device \(index % 2)",
                    for: "client \(index % 4)"
                ) { _ in done.withLock { $0 += 1 } }
            }
            let isDone = done.wait(until: .now + .seconds(60)) { $0 == round * 24 ? true : nil }
            try #require(isDone == true, "round \(round): \(done.withLock { $0 }) jobs are done")
        }
    }

    /// Such requests would delay the end of the server, and take memory.
    @Test func `a request of a closed connection is not done`() throws {
        let scratch = try ScratchDirectory()
        let directory = scratch.path + "/"
        let server = try TestServer(directory + ":rw")
        let client = "127.0.0.1"
        let isFree = Guarded(false)
        let isBusy = Guarded(false)
        // All threads that this client may have.
        server.server.queue.add(for: client) { _ in
            isBusy.withLock { $0 = true }
            isFree.wait { $0 }
        }
        isBusy.wait { $0 }
        let path = directory + "new.img"
        do {
            let gone = try Loopback.connect(port: server.port)
            Loopback.resetOnClose(gone)
            let request = HTTPConnection.request(
                "POST", Route.sessions(device: path).path, [Wire.json],
                body: WireJSON.encode(Wire.sessionRequest(.write, size: 1 << 20)))
            let sent = request.withUnsafeBytes {
                Glibc.send(gone.rawValue, $0.baseAddress, $0.count, 0)
            }
            #expect(sent == request.count)
            #expect(becomesTrue { server.server.connections.count == 1 })
            // Until the server has the whole request.
            usleep(300_000)
        }
        #expect(becomesTrue { server.server.connections.count == 0 })
        isFree.withLock { $0 = true }
        // This one waits behind it.
        #expect(try server.ask("GET", "/v1/devices").status == 200)
        #expect(!FileManager.default.fileExists(atPath: path))
    }
}
