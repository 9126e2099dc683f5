// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockServer
import Foundation
import Logging
import Synchronization
import TestSupport
import Testing
import WireProtocol

/// What a watchdog relies on.
@Suite(.blocking, .timeLimit(.minutes(60))) struct EventLoopTests {
    /// Logs nothing, and holds the thread that logs a request while `isHeld`.
    private final class Holder: LogHandler, Sendable {
        let isHeld = Atomic(false)
        let isHolding = Atomic(false)
        let calls = Atomic(0)
        var logLevel: Logger.Level {
            get { .debug }
            set {}
        }
        var metadata: Logger.Metadata {
            get { [:] }
            set {}
        }
        subscript(metadataKey key: String) -> Logger.Metadata.Value? {
            get { nil }
            set {}
        }

        func log(event: LogEvent) {
            guard event.message.description == "request" else { return }
            while isHeld.load(ordering: .relaxed) {
                isHolding.store(true, ordering: .relaxed)
                usleep(1000)
            }
        }
    }

    @Test(arguments: 0..<2)
    func `the call at intervals stops while an event loop hangs, whichever it is`(
        connections: Int
    ) throws {
        let scratch = try ScratchDirectory()
        let holder = Holder()
        let server = try TestServer("\(scratch.path)/") {
            $0.logger = Logger(label: "test") { _ in holder }
        }
        server.server.whileEventLoopsRun(every: .milliseconds(10)) {
            holder.calls.add(1, ordering: .relaxed)
        }
        #expect(becomesTrue { holder.calls.load(ordering: .relaxed) > 5 })

        // Each connection is on the next event loop.
        let others = try (0..<connections).map { _ in try HTTPConnection(port: server.port) }
        for other in others { #expect(try other.ask("GET", "/v1").status == 200) }
        let connection = try HTTPConnection(port: server.port)
        holder.isHeld.store(true, ordering: .relaxed)
        try connection.send(HTTPConnection.request("GET", "/v1"))
        #expect(becomesTrue { holder.isHolding.load(ordering: .relaxed) })
        usleep(100_000)
        let before = holder.calls.load(ordering: .relaxed)
        usleep(300_000)
        #expect(holder.calls.load(ordering: .relaxed) == before)
        holder.isHeld.store(false, ordering: .relaxed)
        #expect(becomesTrue { holder.calls.load(ordering: .relaxed) > before + 5 })
    }
}
