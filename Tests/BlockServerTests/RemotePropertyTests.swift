// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import BlockServer
import DeviceProbe
import LinuxIO
import SyncEngine
import SystemPackage
import TestSupport
import Testing

/// What holds for every push and pull.
@Suite(.blocking, .timeLimit(.minutes(60))) struct RemotePropertyTests {
    private let rig: ServerRig
    private let image: String

    init() throws {
        rig = try ServerRig()
        image = rig.image("image")
    }

    @Test(arguments: seeds(28))
    func `after a push both sides are equal, only differences were sent, a second sends none`(
        seed: UInt64
    ) throws {
        let pair = DevicePair(seed: seed)
        try makeImage(image, pair.target)
        let source = RecordingDevice(MemoryDevice(pair.source, knowsHoles: seed % 2 == 0))
        var run = RemoteRun(block: pair.block, method: pair.method)

        run.options.isDryRun = true
        let dry = try run.push(source, to: image, of: rig)
        #expect(try [UInt8](contentsOf: image) == pair.target, "seed \(seed)")
        #expect(dry.isGood, "seed \(seed): \(dry)")

        run.options.isDryRun = false
        run.options.verifies = seed % 3 == 0
        let report = try run.push(source, to: image, of: rig)
        #expect(report.isGood, "seed \(seed): \(report)")
        #expect(try [UInt8](contentsOf: image) == pair.source, "seed \(seed)")
        #expect(source.modifications.isEmpty)
        let differing = pair.differing(block: report.blockSize)
        #expect(report.tally.different == differing.length, "seed \(seed)")
        #expect(report.tally.differentBlocks == differing.count, "seed \(seed)")
        #expect(report.tally.compared == pair.source.count)
        #expect(rig.counts.written + rig.counts.zeroed == differing.length, "seed \(seed)")
        #expect(rig.counts.written == report.tally.written)
        #expect(dry.tally.different == report.tally.different, "seed \(seed)")
        #expect(dry.tally.differentBlocks == report.tally.differentBlocks, "seed \(seed)")
        #expect(dry.firstDifferences == report.firstDifferences, "seed \(seed)")

        let second = try run.push(source, to: image, of: rig)
        #expect(second.isGood && second.tally.different == 0, "seed \(seed): \(second)")
        #expect(rig.counts.written + rig.counts.zeroed == differing.length, "seed \(seed)")
    }

    @Test(arguments: seeds(28))
    func `after a pull both sides are equal, only differences were written, a second writes none`(
        seed: UInt64
    ) throws {
        let pair = DevicePair(seed: seed)
        try makeImage(image, pair.source)
        let memory = MemoryDevice(pair.target, knowsHoles: seed % 2 == 0)
        var run = RemoteRun(block: pair.block, method: pair.method)

        run.options.isDryRun = true
        let untouched = RecordingDevice(memory)
        let dry = try run.pull(image, of: rig, to: untouched)
        #expect(untouched.modifications.isEmpty && !untouched.operations.contains(.flush))

        run.options.isDryRun = false
        run.options.verifies = seed % 3 == 0
        let target = RecordingDevice(memory)
        let report = try run.pull(image, of: rig, to: target)
        #expect(report.isGood, "seed \(seed): \(report)")
        #expect(memory.bytes == pair.source, "seed \(seed)")
        let differing = pair.differing(block: report.blockSize)
        #expect(target.modifications.length == differing.length, "seed \(seed)")
        #expect(
            target.modifications.allSatisfy { write in
                differing.filter(write.overlaps).length >= write.length
            }, "seed \(seed): written outside of what differs")
        #expect(report.tally.differentBlocks == differing.count, "seed \(seed)")
        #expect(report.tally.compared == pair.source.count)
        #expect(target.operations.contains(.flush))
        #expect(dry.tally.different == report.tally.different, "seed \(seed)")
        #expect(dry.firstDifferences == report.firstDifferences, "seed \(seed)")

        let again = RecordingDevice(memory)
        let second = try run.pull(image, of: rig, to: again)
        #expect(second.isGood && second.tally.different == 0, "seed \(seed): \(second)")
        #expect(again.modifications.isEmpty, "seed \(seed)")
        #expect(rig.counts.written + rig.counts.zeroed == 0)
    }

    @Test(arguments: seeds(14))
    func `verify finds exactly the differences, and writes nothing`(seed: UInt64) throws {
        let pair = DevicePair(seed: seed)
        try makeImage(image, pair.source)
        let other = RecordingDevice(MemoryDevice(pair.target))
        let report = try RemoteRun(block: pair.block, method: pair.method)
            .verify(image, of: rig, against: other)
        #expect(report.failure == nil)
        let differing = pair.differing(block: report.blockSize)
        #expect(report.tally.different == differing.length, "seed \(seed)")
        #expect(report.firstDifferences.first?.offset == differing.first?.offset, "seed \(seed)")
        #expect(other.modifications.isEmpty)
        #expect(!report.sourceChanged && !report.targetChanged)
    }

    @Test(arguments: seeds(14))
    func `a whole copy leaves no stale byte and does not compare`(seed: UInt64) throws {
        let pair = DevicePair(seed: seed)
        var run = RemoteRun(block: pair.block, method: pair.method)
        run.options.wholeFile = true
        try makeImage(image, pair.target)
        let pushed = try run.push(
            MemoryDevice(pair.source, knowsHoles: seed % 2 == 0), to: image, of: rig)
        #expect(pushed.isGood, "seed \(seed): \(pushed)")
        #expect(try [UInt8](contentsOf: image) == pair.source, "seed \(seed)")
        // A child of another test may have had the image open: then all is compared at the end.
        let compared = rig.counts.compared
        #expect(compared == 0 || pushed.targetWasOpened)

        let memory = MemoryDevice(
            [UInt8](repeating: 0xA5, count: pair.source.count), knowsHoles: true)
        let target = RecordingDevice(memory)
        let pulled = try run.pull(image, of: rig, to: target)
        #expect(pulled.isGood, "seed \(seed): \(pulled)")
        #expect(memory.bytes == pair.source, "seed \(seed)")
        #expect(target.reads.isEmpty)
        #expect(rig.counts.compared == compared)
    }

    @Test(arguments: seeds(14))
    func `a target of another size gets the size of the source, or keeps its tail`(seed: UInt64)
        throws
    {
        let pair = DevicePair(seed: seed)
        var random = SeededGenerator(seed: seed)
        let old = random.bytes(Int.random(in: 1...(6 << 20), using: &random))
        var run = RemoteRun(block: pair.block, method: pair.method)
        run.options.verifies = true
        for policy in [SizePolicy.resize, .prefix] {
            if policy == .prefix && old.count < pair.source.count { continue }
            let expected = pair.source + (policy == .prefix ? old.dropFirst(pair.source.count) : [])
            run.sizePolicy = policy
            try makeImage(image, old)
            let pushed = try run.push(MemoryDevice(pair.source), to: image, of: rig)
            #expect(pushed.isGood, "seed \(seed), \(policy): \(pushed)")
            #expect(try [UInt8](contentsOf: image) == expected, "seed \(seed), \(policy)")

            try makeImage(image, pair.source)
            let memory = MemoryDevice(old)
            let pulled = try run.pull(image, of: rig, to: memory)
            #expect(pulled.isGood, "seed \(seed), \(policy): \(pulled)")
            #expect(memory.bytes == expected, "seed \(seed), \(policy)")
        }
    }

    @Test func `unreadable sectors are left out of a push, exactly`() throws {
        let pair = DevicePair(seed: 4, size: 4 << 20)
        try makeImage(image, pair.target)
        var faults = FaultyDevice.Faults()
        faults.unreadable = [
            ByteRange(offset: 1_000_000, length: 1), ByteRange(offset: 2_000_000, length: 3000),
        ]
        var run = RemoteRun(block: 4096)
        let source = FaultyDevice(MemoryDevice(pair.source), faults)
        let failed = try run.push(source, to: image, of: rig)
        #expect(failed.failure?.errno == .ioError)
        #expect(failed.isFlushed)

        try makeImage(image, pair.target)
        run.options.skipsUnreadable = true
        let report = try run.push(source, to: image, of: rig)
        #expect(report.isGood, "\(report)")
        var expected = pair.source
        for range in report.unreadableRanges {
            expected.replaceSubrange(
                range.offset..<range.end, with: pair.target[range.offset..<range.end])
        }
        #expect(report.tally.unreadable == report.unreadableRanges.length)
        #expect(report.tally.unreadable <= 4 * 4096)
        #expect(report.tally.compared == pair.source.count)
        #expect(try [UInt8](contentsOf: image) == expected)
    }

    @Test func `a cancelled run is incomplete and flushed, and leaves no session`() throws {
        for wholeFile in [false, true] {
            let pair = DevicePair(seed: 3, size: 8 << 20)
            try makeImage(image, pair.target)
            var faults = FaultyDevice.Faults()
            var run = RemoteRun()
            run.options.wholeFile = wholeFile
            run.options.concurrency = 1
            let control = run.control
            faults.onRead = { if $0.offset >= 2 << 20 { control.cancel() } }
            let report = try run.push(
                FaultyDevice(MemoryDevice(pair.source), faults), to: image, of: rig)
            #expect(report.wasInterrupted && report.failure == nil && report.isFlushed)
            #expect(report.tally.compared < pair.source.count)
            #expect(rig.server.sessionCount == 0)
            let second = try RemoteRun().push(MemoryDevice(pair.source), to: image, of: rig)
            #expect(second.isGood, "\(second)")
            #expect(try [UInt8](contentsOf: image) == pair.source)
        }
    }
}
