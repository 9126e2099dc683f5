// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import TestSupport
import Testing

@testable import SyncEngine

@Suite(.blocking) struct SyncOfChangesTests {
    @Test(arguments: UInt64(1)...40)
    func `the ranges of a map are synced, and nothing else is read or written`(seed: UInt64) {
        let pair = DevicePair.small(seed: seed)
        var random = SeededGenerator(seed: seed)
        let size = pair.source.count
        var changes: [ByteRange] = []
        var position = 0
        while position < size, Bool.random(using: &random) || changes.isEmpty {
            let start = Int.random(in: position..<size, using: &random)
            let end = min(size, start + Int.random(in: 1...300_000, using: &random))
            changes.append(ByteRange(start, to: end))
            position = end + 1
        }
        let source = RecordingDevice(MemoryDevice(pair.source, knowsHoles: seed % 2 == 0))
        let memory = MemoryDevice(pair.target, knowsHoles: seed % 3 == 0)
        let target = RecordingDevice(memory)
        let layout = BlockLayout(block: pair.block)
        let options = SyncOptions(layout: layout, concurrency: 3, changes: changes)
        // Digests are of whole regions.
        let named = changes.map { change in
            ByteRange(
                change.offset / layout.region * layout.region,
                to: min(size, (change.end + layout.region - 1) / layout.region * layout.region))
        }
        func isNamed(_ range: ByteRange) -> Bool {
            stride(from: range.offset, to: range.end, by: 512).allSatisfy { offset in
                named.contains { $0.offset <= offset && offset < $0.end }
            }
        }
        let report = synchronize(
            source: source, target: target, options: options, control: RunControl())
        #expect(report.failure == nil && !report.wasInterrupted)
        #expect(report.tally.compared + report.tally.unchanged == size)
        let accesses = source.reads + target.reads + target.modifications
        #expect(accesses.allSatisfy { isNamed($0) })
        var expected = pair.target
        for range in named {
            expected.replaceSubrange(
                range.offset..<range.end, with: pair.source[range.offset..<range.end])
        }
        #expect(memory.bytes == expected)
    }

    @Test func `verification reads everything back, whatever the map says`() {
        var bytes = [UInt8](repeating: 7, count: 1 << 20)
        let source = MemoryDevice(bytes)
        bytes[900_000] = 8
        let target = MemoryDevice(bytes)
        var options = SyncOptions(verifies: true, concurrency: 2)
        options.changes = [ByteRange(offset: 0, length: 4096)]
        let report = synchronize(
            source: source, target: target, options: options, control: RunControl())
        #expect(report.tally.unchanged == (1 << 20) - (64 << 10))
        #expect(report.verification?.compared == 1 << 20)
        #expect(report.verification?.different == 4096)
    }
}
