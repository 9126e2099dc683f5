// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockReplication
import SyncEngine
import TestSupport
import Testing

/// What the server is told of a run whose end is judged by whoever has started it.
@Suite(.blocking, .timeLimit(.minutes(30))) struct ReplicationEndTests {
    @Test(arguments: [true, false])
    func `a run that does not count abandons its target, though all of it was written`(
        counts: Bool
    ) throws {
        let scratch = try ScratchDirectory()
        let source = try SeededImage(scratch, size: 1 << 20)
        let server = try TestServer(scratch.path + "/:rw")
        let replication = try Replication(
            .synchronize, from: source.path,
            to: "http://127.0.0.1:\(server.port)\(scratch.file("target"))",
            options: .init(), control: RunControl()
        ) { _ in }
        let report = replication.run(changes: nil) { _ in counts }
        #expect(report.isDone)
        #expect(try [UInt8](contentsOf: scratch.file("target")) == source.bytes)
        #expect(server.log.all(with: counts ? "end=committed" : "end=abandoned").count == 1)
    }
}
