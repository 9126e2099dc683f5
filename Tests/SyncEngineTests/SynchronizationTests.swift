// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import LinuxIO
import SystemPackage
import TestSupport
import Testing

@testable import SyncEngine

extension DevicePair {
    /// A pair up to 3 MiB, with changes that often lie within one block.
    static func small(seed: UInt64) -> DevicePair {
        DevicePair(seed: seed, largest: 3 << 20, longestChange: 20_000)
    }
}

@Suite struct SynchronizationProperties {
    @Test(arguments: UInt64(1)...60)
    func `after a sync both sides are equal, only differences were written, a second writes none`(
        seed: UInt64
    ) {
        let pair = DevicePair.small(seed: seed)
        let source = RecordingDevice(MemoryDevice(pair.source, knowsHoles: seed % 2 == 0))
        let memory = MemoryDevice(pair.target, knowsHoles: seed % 3 == 0)
        let target = RecordingDevice(memory)
        let options = SyncOptions(layout: BlockLayout(block: pair.block), concurrency: 3)

        let report = synchronize(
            source: source, target: target, options: options, control: RunControl())
        #expect(memory.bytes == pair.source, "seed \(seed)")
        #expect(source.modifications.isEmpty)
        let differing = pair.differing(block: pair.block)
        #expect(
            target.modifications.reduce(0) { $0 + $1.length }
                == differing.reduce(0) { $0 + $1.length }, "seed \(seed)")
        #expect(
            differing.allSatisfy { block in
                target.modifications.contains { $0.intersection(block) == block }
            }, "seed \(seed)")
        #expect(report.tally.differentBlocks == differing.count)
        #expect(report.tally.different == report.tally.written + report.tally.zeroed)
        #expect(report.tally.compared == pair.source.count)
        #expect(target.operations.last == .flush)

        let again = RecordingDevice(memory)
        let second = synchronize(
            source: source, target: again, options: options, control: RunControl())
        #expect(again.modifications.isEmpty, "seed \(seed)")
        #expect(second.tally.different == 0 && second.similarity == 1)
        #expect(again.operations.last == .flush)
    }

    @Test(arguments: UInt64(1)...20)
    func `a dry run finds what a sync would write, and writes nothing`(seed: UInt64) {
        let pair = DevicePair.small(seed: seed)
        let target = RecordingDevice(MemoryDevice(pair.target))
        let report = synchronize(
            source: MemoryDevice(pair.source), target: target,
            options: SyncOptions(layout: BlockLayout(block: pair.block), isDryRun: true),
            control: RunControl())
        #expect(
            report.tally.different == pair.differing(block: pair.block).reduce(0) { $0 + $1.length }
        )
        #expect(target.modifications.isEmpty)
        #expect(!target.operations.contains(.flush))
    }

    @Test(arguments: UInt64(1)...20)
    func `a whole copy leaves no stale byte and does not read the target`(seed: UInt64) {
        let pair = DevicePair.small(seed: seed)
        let memory = MemoryDevice(
            [UInt8](repeating: 0xA5, count: pair.source.count), knowsHoles: true)
        let target = RecordingDevice(memory)
        let report = synchronize(
            source: MemoryDevice(pair.source, knowsHoles: true), target: target,
            options: SyncOptions(layout: BlockLayout(block: pair.block), wholeFile: true),
            control: RunControl())
        #expect(memory.bytes == pair.source, "seed \(seed)")
        #expect(target.reads.isEmpty)
        #expect(report.tally.written + report.tally.zeroed == pair.source.count)
    }

    @Test func `holes of the source are not read`() {
        var bytes = [UInt8](repeating: 0, count: 8 << 20)
        bytes[5 << 20] = 1
        let source = RecordingDevice(MemoryDevice(bytes, knowsHoles: true))
        let memory = MemoryDevice([UInt8](repeating: 7, count: bytes.count))
        _ = synchronize(
            source: source, target: memory, options: SyncOptions(), control: RunControl())
        #expect(memory.bytes == bytes)
        #expect(source.reads.reduce(0) { $0 + $1.length } == BlockLayout().window)
    }
}

@Suite struct ResizingTests {
    @Test func `a target is grown before the first write`() {
        let content = [UInt8](repeating: 3, count: 100_000)
        let memory = MemoryDevice([UInt8](repeating: 3, count: 8192))
        let target = RecordingDevice(memory)
        _ = synchronize(
            source: MemoryDevice(content), target: target,
            options: SyncOptions(resizeTo: content.count), control: RunControl())
        #expect(memory.bytes == content)
        #expect(target.operations.first == .resize(content.count))
    }

    @Test func `a target is shrunk after the last write and before the flush`() {
        let content = [UInt8](repeating: 3, count: 100_000)
        let memory = MemoryDevice([UInt8](repeating: 4, count: 200_000))
        let target = RecordingDevice(memory)
        _ = synchronize(
            source: MemoryDevice(content), target: target,
            options: SyncOptions(resizeTo: content.count), control: RunControl())
        #expect(memory.bytes == content)
        #expect(target.operations.suffix(2) == [.resize(content.count), .flush])
    }

    @Test func `a run that fails does not cut the target`() {
        var faults = FaultyDevice.Faults()
        faults.unreadable = [ByteRange(offset: 0, length: 1)]
        let memory = MemoryDevice([UInt8](repeating: 4, count: 200_000))
        let report = synchronize(
            source: FaultyDevice(MemoryDevice([UInt8](repeating: 3, count: 100_000)), faults),
            target: memory, options: SyncOptions(resizeTo: 100_000), control: RunControl())
        #expect(report.failure != nil)
        #expect(memory.bytes.count == 200_000)
    }

    @Test func `bytes beyond the source stay as they are`() {
        let memory = MemoryDevice([UInt8](repeating: 4, count: 200_000))
        _ = synchronize(
            source: MemoryDevice([UInt8](repeating: 3, count: 102_400)), target: memory,
            options: SyncOptions(), control: RunControl())
        #expect(memory.bytes.prefix(102_400).allSatisfy { $0 == 3 })
        #expect(memory.bytes.dropFirst(102_400).allSatisfy { $0 == 4 })
    }
}
