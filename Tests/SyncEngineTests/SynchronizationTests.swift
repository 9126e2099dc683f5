// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import Glibc
import LinuxIO
import SystemPackage
import TestSupport
import Testing

@testable import SyncEngine

/// A pair of devices, made from a seed, that differ in some blocks.
struct DevicePair {
    var source: [UInt8]
    var target: [UInt8]
    let block: Int

    init(seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        block = [512, 1024, 4096, 5120, 65536][Int.random(in: 0..<5, using: &random)]
        let size = Int.random(in: 1...(3 << 20), using: &random)
        source = random.bytes(size)
        target = source
        for _ in 0..<Int.random(in: 0...40, using: &random) {
            let start = Int.random(in: 0..<size, using: &random)
            let end = min(size, start + Int.random(in: 1...20000, using: &random))
            switch Int.random(in: 0..<4, using: &random) {
            case 0: for index in start..<end { source[index] = 0 }
            case 1: for index in start..<end { target[index] = 0 }
            case 2:
                for index in start..<end {
                    source[index] = 0
                    target[index] = 0
                }
            default: for index in start..<end { target[index] &+= 3 }
            }
        }
    }

    /// The blocks in which the two differ.
    var differing: [ByteRange] {
        stride(from: 0, to: source.count, by: block).compactMap { start in
            let end = min(source.count, start + block)
            let isEqual = source.withUnsafeBytes { old in
                target.withUnsafeBytes { new in
                    guard let old = old.baseAddress, let new = new.baseAddress else { return true }
                    return memcmp(old + start, new + start, end - start) == 0
                }
            }
            return isEqual ? nil : ByteRange(start, to: end)
        }
    }
}

@Suite struct SynchronizationProperties {
    @Test(arguments: UInt64(1)...60)
    func `after a sync both are equal, only blocks that differ were written, a second writes none`(
        seed: UInt64
    ) {
        let pair = DevicePair(seed: seed)
        let source = RecordingDevice(MemoryDevice(pair.source, knowsHoles: seed % 2 == 0))
        let memory = MemoryDevice(pair.target, knowsHoles: seed % 3 == 0)
        let target = RecordingDevice(memory)
        let options = SyncOptions(layout: BlockLayout(block: pair.block), concurrency: 3)

        let report = synchronize(
            source: source, target: target, options: options, control: RunControl())
        #expect(memory.bytes == pair.source, "seed \(seed)")
        #expect(source.modifications.isEmpty)
        let differing = pair.differing
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
        let pair = DevicePair(seed: seed)
        let target = RecordingDevice(MemoryDevice(pair.target))
        let report = synchronize(
            source: MemoryDevice(pair.source), target: target,
            options: SyncOptions(layout: BlockLayout(block: pair.block), isDryRun: true),
            control: RunControl())
        #expect(report.tally.different == pair.differing.reduce(0) { $0 + $1.length })
        #expect(target.modifications.isEmpty)
        #expect(!target.operations.contains(.flush))
    }

    @Test(arguments: UInt64(1)...20)
    func `a whole copy leaves no stale byte and does not read the target`(seed: UInt64) {
        let pair = DevicePair(seed: seed)
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

    @Test func `what is beyond the source stays as it is`() {
        let memory = MemoryDevice([UInt8](repeating: 4, count: 200_000))
        _ = synchronize(
            source: MemoryDevice([UInt8](repeating: 3, count: 102_400)), target: memory,
            options: SyncOptions(), control: RunControl())
        #expect(memory.bytes.prefix(102_400).allSatisfy { $0 == 3 })
        #expect(memory.bytes.dropFirst(102_400).allSatisfy { $0 == 4 })
    }
}
