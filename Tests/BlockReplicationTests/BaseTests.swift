// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import BlockReplication
import Foundation
import SyncEngine
import TestSupport
import Testing

/// What tells the next run whether the target is still what this one has left.
@Suite(.blocking) struct BaseTests {
    private let scratch: ScratchDirectory
    private let source: String
    private let target: String
    private let size = 4 << 20

    init() throws {
        scratch = try ScratchDirectory()
        (source, target) = (scratch.file("source"), scratch.file("target"))
        var random = SeededGenerator(seed: 4)
        try Data(random.bytes(size)).write(to: URL(fileURLWithPath: source))
    }

    private func open(_ target: String) throws -> Replication {
        try Replication(
            .synchronize, from: source, to: target, options: .init(), control: RunControl()
        ) { _ in }
    }

    /// The target, when it is a replica.
    private func replicate() throws -> (identity: String, mark: String, root: String) {
        let replication = try open(target)
        var result: (String, String, String)?
        let report = replication.run(changes: nil) { _ in
            if let identity = try? replication.targetIdentity(),
                let mark = try? replication.targetMark(),
                let root = try? replication.root(of: .source, seed: 5, size: size)
            {
                result = (identity, mark, root)
            }
            return true
        }
        #expect(report.isDone)
        return try #require(result)
    }

    @Test func `a target that nobody has touched is known again`() throws {
        let left = try replicate()
        let again = try open(target)
        #expect(try again.targetIdentity() == left.identity)
        #expect(try again.targetMark() == left.mark)
        #expect(try again.root(of: .target, seed: 5, size: size) == left.root)
        #expect(try again.root(of: .target, seed: 6, size: size) != left.root)
        #expect(try again.sampleDifferences(size: size, oneIn: 1).isEmpty)
    }

    @Test func `a single byte that is written anew changes the mark, another file the identity`()
        throws
    {
        let left = try replicate()
        let bytes = try Data(contentsOf: URL(fileURLWithPath: target))
        let handle = try FileHandle(forWritingTo: URL(fileURLWithPath: target))
        try handle.seek(toOffset: 1_000_000)
        try handle.write(contentsOf: bytes[1_000_000..<1_000_001])
        try handle.close()
        let again = try open(target)
        #expect(try again.targetIdentity() == left.identity)
        #expect(try again.targetMark() != left.mark)
        let other = try open(scratch.file("another"))
        #expect(try other.targetIdentity() != left.identity)
    }

    @Test func `a write whose time was set back changes the mark as well`() throws {
        let left = try replicate()
        try must("cp", "-p", "--attributes-only", target, scratch.file("reference"))
        let handle = try FileHandle(forWritingTo: URL(fileURLWithPath: target))
        try handle.seek(toOffset: 2_000_000)
        try handle.write(contentsOf: Data([1, 2, 3]))
        try handle.close()
        try must("touch", "-r", scratch.file("reference"), target)
        #expect(try open(target).targetMark() != left.mark)
    }

    @Test func `writes that come right after the mark change it`() throws {
        /// The mark that a run leaves, which somebody writes right after.
        func markOfRun() throws -> String? {
            let replication = try open(target)
            var before: String?
            let report = replication.run(changes: nil) { _ in
                before = try? replication.targetMark()
                // Within a tick of the kernel's clock, mostly.
                _ = try? must(
                    "dd", "if=/dev/zero", "of=\(target)", "bs=1", "count=1", "conv=notrunc")
                return true
            }
            #expect(report.isDone && before != nil)
            return before
        }
        for round in 0..<20 {
            let before = try markOfRun()
            #expect(try open(target).targetMark() != before, "round \(round)")
        }
    }

    @Test func `a server of pdiffcopy has a name, and nothing to go by`() throws {
        let server = try Pdiffcopy.Server()
        let url = "http://127.0.0.1:\(server.port)\(target)"
        let replication = try open(url)
        #expect(try replication.targetIdentity() != open(target).targetIdentity())
        #expect(try replication.targetIdentity() == open(url).targetIdentity())
        #expect(try replication.targetMark() == nil)
        #expect(replication.run(changes: nil) { _ in true }.isDone)
    }

    @Test(.enabled(if: isRoot, "loop devices need root"))
    func `what is written to a loop device's file changes the mark`() throws {
        let file = try scratch.sparseFile("backing", size: size)
        let loop = try LoopDevice(backingFile: file)
        #expect(try open(loop.path).run(changes: nil) { _ in true }.isDone)
        let mark = try open(loop.path).targetMark()
        #expect(try mark != nil && open(loop.path).targetMark() == mark)
        try must("dd", "if=/dev/zero", "of=\(file)", "bs=1", "count=1", "conv=notrunc")
        let written = try open(loop.path).targetMark()
        #expect(written != nil && written != mark)
        // Of one that is not found any more nothing can be told.
        try must("rm", file)
        #expect(try open(loop.path).targetMark() == nil)
    }

    @Test func `what is written to the source once changes were asked for is a change of it`()
        throws
    {
        _ = try replicate()
        for (isAskedBefore, isChanged) in [(true, true), (false, false)] {
            let replication = try open(target)
            let stamp = isAskedBefore ? replication.sourceStamp() : nil
            #expect(isAskedBefore == (stamp != nil))
            try must("dd", "if=/dev/urandom", "of=\(source)", "bs=4k", "count=1", "conv=notrunc")
            let report = replication.run(changes: [], since: stamp) { _ in true }
            #expect(report.sourceChanged == isChanged && report.isDone)
        }
    }

    @Test func `samples find what is another`() throws {
        _ = try replicate()
        let handle = try FileHandle(forWritingTo: URL(fileURLWithPath: target))
        // The first place is in every sample.
        try handle.write(contentsOf: Data([1, 2, 3]))
        try handle.close()
        let again = try open(target)
        #expect(
            try again.root(of: .target, seed: 5, size: size)
                != again.root(of: .source, seed: 5, size: size))
        #expect(try again.sampleDifferences(size: size, oneIn: 512) == [0..<4096])
        #expect(
            try again.sampleDifferences(size: size, oneIn: 1) { $0.lowerBound > 0 }.isEmpty)
        let report = again.run(changes: [ByteRange(offset: 1 << 20, length: 4096)]) { _ in true }
        #expect(report.isDone && report.different == 0)
        #expect(report.unchanged == size - (64 << 10))
    }
}
