// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import SyncEngine
import TestSupport
import Testing

@testable import BlockReplication

/// What the client reports to the server if the caller of the library decides whether a run counts.
@Suite(.blocking, .timeLimit(.minutes(60))) struct ReplicationEndTests {
    @Test(arguments: [true, false])
    func `a run that does not count abandons its target, though all of it was written`(counts: Bool)
        throws
    {
        let scratch = try ScratchDirectory()
        let source = try SeededImage(scratch, size: 1 << 20)
        let server = try TestServer(scratch.path + "/:rw")
        let replication = try OpenPair(
            .synchronize,
            Operands(source.path, "http://127.0.0.1:\(server.port)\(scratch.file("target"))"),
            options: .init(), control: RunControl()
        ) { _ in }
        let report = replication.run { _ in counts }
        #expect(report.isDone)
        #expect(try [UInt8](contentsOf: scratch.file("target")) == source.bytes)
        #expect(server.log.all(with: counts ? "end=committed" : "end=abandoned").count == 1)
    }

    @Test func `a target that the server has extended keeps the change counter it was found with`()
        throws
    {
        let scratch = try ScratchDirectory()
        let source = try SeededImage(scratch, size: 1 << 20)
        let server = try TestServer(scratch.path + "/:rw")
        func open() throws -> OpenPair {
            try OpenPair(
                .synchronize,
                Operands(source.path, "http://127.0.0.1:\(server.port)\(scratch.file("target"))"),
                options: .init(), control: RunControl()
            ) { _ in }
        }
        let first = try open()
        var left: TargetMark?
        _ = first.run { _ in
            left = try? first.targetMark()
            return true
        }
        try must("truncate", "-s", "2M", source.path)
        let second = try open()
        #expect(try left != nil && second.targetMark(asFound: true) == left)
        #expect(try second.targetMark() != left)
        #expect(second.run { _ in true }.isDone)
        // Another program has written to it during the run.
        let target = "of=\(scratch.file("target"))"
        try must("dd", "if=/dev/zero", target, "bs=1", "count=1", "conv=notrunc")
        try must("truncate", "-s", "3M", source.path)
        #expect(try open().targetMark(asFound: true) != left)
    }
}
