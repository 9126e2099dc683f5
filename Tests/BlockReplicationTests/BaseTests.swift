// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import DeviceProbe
import Foundation
import LinuxIO
import SyncEngine
import TestSupport
import Testing

@testable import BlockReplication

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

    private func open(_ target: String) throws -> OpenPair {
        try OpenPair(
            .synchronize, Operands(source, target), options: .init(), control: RunControl()
        ) { _ in }
    }

    /// The target, when it is a replica.
    private func replicate() throws -> (identity: String, mark: String, root: String) {
        let replication = try open(target)
        var result: (String, String, String)?
        let report = replication.run { _ in
            if let identity = try? replication.targetIdentity(),
                let mark = try? replication.targetMark()?.text,
                let root = try? replication.root(of: .source, seed: 5, size: size)
            {
                result = (identity, mark, root)
            }
            return true
        }
        #expect(report.isDone)
        return try #require(result)
    }

    @Test func `a target that nobody has touched is recognized`() throws {
        let left = try replicate()
        let again = try open(target)
        #expect(try again.targetIdentity() == left.identity)
        #expect(try again.targetMark()?.text == left.mark)
        #expect(try again.root(of: .target, seed: 5, size: size) == left.root)
        #expect(try again.root(of: .target, seed: 6, size: size) != left.root)
        #expect(try again.sampleDifferences(size: size, oneIn: 1).isEmpty)
    }

    @Test func `a refused run skips the work that precedes the first write`() throws {
        _ = try replicate()
        let handle = try FileHandle(forWritingTo: URL(fileURLWithPath: target))
        try handle.write(contentsOf: Data(repeating: 7, count: size / 2))
        try handle.close()
        let before = try Data(contentsOf: URL(fileURLWithPath: target))
        for (limit, fails) in [(10.0, false), (90.0, true), (90.0, false)] {
            var options = Replication.Options()
            options.maximumChange = limit
            let replication = try OpenPair(
                .synchronize, Operands(source, target), options: options, control: RunControl()
            ) { _ in }
            var hasBegun = false
            let report = replication.run {
                hasBegun = true
                return fails ? IOError("tags", "change", reason: "no room") : nil
            } end: { _ in
                true
            }
            #expect((report.refusal != nil) == (limit == 10) && hasBegun == (limit != 10))
            #expect(report.isDone == (hasBegun && !fails))
            let isUntouched = try Data(contentsOf: URL(fileURLWithPath: target)) == before
            #expect(isUntouched != report.isDone)
        }
    }

    @Test func `one rewritten byte changes the change counter, and another file the identity`()
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
        #expect(try again.targetMark()?.text != left.mark)
        let other = try open(scratch.file("another"))
        #expect(try other.targetIdentity() != left.identity)
    }

    @Test func `a write whose time was set back changes the change counter as well`() throws {
        let left = try replicate()
        try must("cp", "-p", "--attributes-only", target, scratch.file("reference"))
        let handle = try FileHandle(forWritingTo: URL(fileURLWithPath: target))
        try handle.seek(toOffset: 2_000_000)
        try handle.write(contentsOf: Data([1, 2, 3]))
        try handle.close()
        try must("touch", "-r", scratch.file("reference"), target)
        #expect(try open(target).targetMark()?.text != left.mark)
    }

    @Test func `writes right after the change counter was read change it`() throws {
        /// The counter that a run leaves, if another program writes right after reading it.
        func markOfRun() throws -> String? {
            let replication = try open(target)
            var before: String?
            let report = replication.run { _ in
                before = try? replication.targetMark()?.text
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
            #expect(try open(target).targetMark()?.text != before, "round \(round)")
        }
    }

    @Test func `a pdiffcopy target has an identity, and no change counter`() throws {
        let server = try Pdiffcopy.Server()
        let url = "http://127.0.0.1:\(server.port)\(target)"
        let replication = try open(url)
        #expect(try replication.targetIdentity() != open(target).targetIdentity())
        #expect(try replication.targetIdentity() == open(url).targetIdentity())
        #expect(try replication.targetMark() == nil)
        #expect(replication.run { _ in true }.isDone)
    }

    @Test(.enabled(if: isRoot, "loop devices need root"))
    func `a write to a loop device's file changes the change counter`() throws {
        let file = try scratch.sparseFile("backing", size: size)
        let loop = try LoopDevice(backingFile: file)
        #expect(try open(loop.path).run { _ in true }.isDone)
        let mark = try open(loop.path).targetMark()
        #expect(try mark != nil && open(loop.path).targetMark() == mark)
        try must("dd", "if=/dev/zero", "of=\(file)", "bs=1", "count=1", "conv=notrunc")
        let written = try open(loop.path).targetMark()
        #expect(written != nil && written != mark)
        // Nothing is known of a device that is not found any more.
        try must("rm", file)
        #expect(try open(loop.path).targetMark() == nil)
    }

    @Test func `a write to the source after its changes were read counts as a change`() throws {
        _ = try replicate()
        for (isAskedBefore, isChanged) in [(true, true), (false, false)] {
            let replication = try open(target)
            let stamp = isAskedBefore ? replication.sourceEnd.device.changeCounter() : nil
            #expect(isAskedBefore == (stamp != nil))
            try must("dd", "if=/dev/urandom", "of=\(source)", "bs=4k", "count=1", "conv=notrunc")
            let report = replication.run(changes: [], since: stamp) { _ in true }
            #expect(report.sourceChanged == isChanged)
            // A child of another test may have had the target open: then all is compared.
            #expect(report.isDone || report.verifiedDifferent == 4096)
        }
    }

    @Test func `samples find differences`() throws {
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
        #expect(report.different == 0 && report.unchanged == size - (64 << 10))
        #expect(report.isDone || report.verifiedDifferent == 4096)
    }
}
