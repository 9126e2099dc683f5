// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import LinuxIO
import TestSupport
import Testing

@testable import SyncEngine

@Suite struct WindowCursorTests {
    private func windows(
        source: MemoryDevice, target: MemoryDevice, length: Int, holeSize: Int = 8192
    ) throws -> (windows: [Window], skipped: Int) {
        var cursor = WindowCursor(
            source: source, target: target, length: length, windowSize: 8192, holeSize: holeSize)
        var windows: [Window] = []
        var skipped = 0
        while true {
            let next = try cursor.next()
            skipped += next.skipped
            guard let window = next.window else { return (windows, skipped) }
            windows.append(window)
        }
    }

    @Test func `without holes every byte is in one window, in ascending order`() throws {
        let device = MemoryDevice([UInt8](repeating: 1, count: 20000))
        let result = try windows(source: device, target: device, length: 20000)
        #expect(result.windows.map(\.range.offset) == [0, 8192, 16384])
        #expect(result.windows.last?.range.end == 20000)
        #expect(result.skipped == 0)
    }

    @Test func `windows have only ranges that may have changed, and the rest is counted`() throws {
        let device = MemoryDevice([UInt8](repeating: 1, count: 100_000))
        let changes = [
            ByteRange(offset: 0, length: 512), ByteRange(offset: 8192, length: 20000),
            ByteRange(offset: 99_000, length: 1000),
        ]
        var cursor = WindowCursor(
            source: device, target: device, length: 100_000, windowSize: 8192, holeSize: 8192,
            changes: changes)
        var windows: [ByteRange] = []
        var unchanged = 0
        while true {
            let next = try cursor.next()
            unchanged += next.unchanged
            #expect(next.skipped == 0)
            guard let window = next.window else { break }
            windows.append(window.range)
        }
        #expect(
            windows == [
                changes[0], ByteRange(offset: 8192, length: 8192),
                ByteRange(offset: 16384, length: 8192), ByteRange(offset: 24576, length: 3616),
                changes[2],
            ])
        #expect(unchanged == 100_000 - 21_512)
    }

    @Test func `short ranges with data on both sides are handed out together, as many as fit`()
        throws
    {
        var bytes = [UInt8](repeating: 1, count: 100_000)
        let source = MemoryDevice(bytes)
        for index in 40_960..<49_152 { bytes[index] = 0 }
        let target = MemoryDevice(bytes, knowsHoles: true)
        let changes = [
            ByteRange(offset: 0, length: 4096), ByteRange(offset: 8192, length: 2048),
            ByteRange(offset: 16384, length: 4096), ByteRange(offset: 40_960, length: 4096),
            ByteRange(offset: 57_344, length: 1024), ByteRange(offset: 99_000, length: 1000),
        ]
        var cursor = WindowCursor(
            source: source, target: target, length: 100_000, windowSize: 8192, holeSize: 8192,
            changes: changes)
        var groups: [[ByteRange]] = []
        var unchanged = 0
        while true {
            let next = try cursor.nextGroup()
            unchanged += next.unchanged
            guard !next.windows.isEmpty else { break }
            groups.append(next.windows.map(\.range))
        }
        // The third one is cut where the window is full, the fourth is in a hole of the target.
        #expect(
            groups == [
                [changes[0], changes[1], ByteRange(offset: 16384, length: 2048)],
                [ByteRange(offset: 18432, length: 2048)], [changes[3]], [changes[4], changes[5]],
            ])
        #expect(unchanged == 100_000 - 16_360)
    }

    @Test func `without changes there is no window`() throws {
        let device = MemoryDevice([UInt8](repeating: 1, count: 20000))
        var cursor = WindowCursor(
            source: device, target: device, length: 20000, windowSize: 8192, holeSize: 8192,
            changes: [])
        let next = try cursor.next()
        #expect(next.window == nil && next.unchanged == 20000)
    }

    @Test func `windows without data on either side are skipped and counted`() throws {
        var bytes = [UInt8](repeating: 0, count: 10 * 8192)
        bytes[3 * 8192 + 5000] = 1
        let source = MemoryDevice(bytes, knowsHoles: true)
        bytes[3 * 8192 + 5000] = 0
        bytes[7 * 8192] = 1
        let target = MemoryDevice(bytes, knowsHoles: true)
        let result = try windows(source: source, target: target, length: bytes.count)
        #expect(
            result.windows == [
                Window(
                    range: ByteRange(offset: 3 * 8192, length: 8192), sourceIsHole: false,
                    targetIsHole: true),
                Window(
                    range: ByteRange(offset: 7 * 8192, length: 8192), sourceIsHole: true,
                    targetIsHole: false),
            ])
        #expect(result.skipped == 8 * 8192)
    }

    @Test func `a long hole of the source is one window if the source is not read there`() throws {
        let source = MemoryDevice(
            [UInt8](repeating: 0, count: 10 * 8192 + 100), knowsHoles: true)
        let target = MemoryDevice([UInt8](repeating: 1, count: 10 * 8192 + 100))
        let result = try windows(
            source: source, target: target, length: 10 * 8192 + 100, holeSize: 6 * 8192)
        #expect(
            result.windows.map(\.range) == [
                ByteRange(offset: 0, length: 6 * 8192),
                ByteRange(offset: 6 * 8192, length: 4 * 8192),
                ByteRange(offset: 10 * 8192, length: 100),
            ])
    }
}

@Suite struct RangeListTests {
    @Test func `the lowest ranges are kept and joined, whatever order they come in`() {
        var list = LowestRanges(limit: 4)
        for block in [9, 1, 5, 2, 7, 0, 12, 6] {
            list.insert(ByteRange(offset: block * 10, length: 10))
        }
        #expect(
            list.ranges == [
                ByteRange(offset: 0, length: 30), ByteRange(offset: 50, length: 30),
                ByteRange(offset: 90, length: 10),
            ])
    }

    @Test func `the last range of a full list is extended by a range that continues it`() {
        var list = LowestRanges(limit: 1)
        for block in [3, 4, 9] { list.insert(ByteRange(offset: block * 10, length: 10)) }
        #expect(list.ranges == [ByteRange(offset: 30, length: 20)])
    }

    @Test func `subtracting ranges cuts extents at both ends and in the middle`() {
        let extents = [
            Extent(ByteRange(offset: 0, length: 100), .data),
            Extent(ByteRange(offset: 200, length: 100), .zero),
        ]
        let left = extents.subtracting([
            ByteRange(offset: 0, length: 10), ByteRange(offset: 50, length: 10),
            ByteRange(offset: 90, length: 120), ByteRange(offset: 299, length: 1),
        ])
        #expect(
            left == [
                Extent(ByteRange(10, to: 50), .data), Extent(ByteRange(60, to: 90), .data),
                Extent(ByteRange(210, to: 299), .zero),
            ])
    }

    @Test func `rounding ranges grows them outwards, stays within the limit and joins`() {
        let ranges = [ByteRange(600, to: 700), ByteRange(900, to: 1100), ByteRange(9000, to: 9100)]
        #expect(
            ranges.rounded(to: 512, limit: 9150) == [
                ByteRange(512, to: 1536), ByteRange(8704, to: 9150),
            ])
    }
}

@Suite struct BlockComparisonTests {
    @Test(arguments: UInt64(1)...40)
    func `the extents of a comparison are the blocks that differ, byte by byte`(seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        let layout = BlockLayout(block: [512, 1024, 4096, 5120][Int(seed % 4)])
        let length = Int.random(in: 1...layout.window, using: &random)
        var source = random.bytes(length)
        var target = source
        for _ in 0..<Int.random(in: 0...20, using: &random) {
            let index = Int.random(in: 0..<length, using: &random)
            target[index] &+= 1
            if Bool.random(using: &random) {
                let block = index / layout.block * layout.block
                for index in block..<min(length, block + layout.block) { source[index] = 0 }
            }
        }

        var expected: [Extent] = []
        for start in stride(from: 0, to: length, by: layout.block) {
            let end = min(length, start + layout.block)
            if source[start..<end] == target[start..<end] { continue }
            let kind: Extent.Kind = source[start..<end].allSatisfy { $0 == 0 } ? .zero : .data
            let range = ByteRange(7 * 4096 + start, to: 7 * 4096 + end)
            if let last = expected.last, last.kind == kind, last.range.end == range.offset {
                expected[expected.count - 1].range.length += range.length
            } else {
                expected.append(Extent(range, kind))
            }
        }

        var found: [Extent] = []
        source.withUnsafeBytes { source in
            target.withUnsafeBytes { target in
                BlockComparison(layout: layout).differences(
                    source: source, target: target,
                    range: ByteRange(offset: 7 * 4096, length: length), into: &found)
            }
        }
        #expect(found == expected, "seed \(seed)")
    }

    @Test func `a side that is known to be zeros needs no buffer`() {
        let comparison = BlockComparison(layout: BlockLayout())
        var bytes = [UInt8](repeating: 0, count: 3 * 4096)
        bytes[4096] = 1
        let range = ByteRange(offset: 0, length: bytes.count)
        let block = ByteRange(offset: 4096, length: 4096)
        var found: [Extent] = []
        bytes.withUnsafeBytes {
            comparison.differences(source: $0, target: nil, range: range, into: &found)
            comparison.differences(source: nil, target: $0, range: range, into: &found)
        }
        comparison.differences(source: nil, target: nil, range: range, into: &found)
        #expect(found == [Extent(block, .data), Extent(block, .zero)])
    }

    @Test func `a whole copy writes everything but zeros that the target has already`() {
        let comparison = BlockComparison(layout: BlockLayout())
        var bytes = [UInt8](repeating: 0, count: 3 * 4096)
        bytes[4096] = 1
        let range = ByteRange(offset: 0, length: bytes.count)
        var found: [Extent] = []
        bytes.withUnsafeBytes {
            comparison.everything(source: $0, range: range, targetIsZero: true, into: &found)
        }
        #expect(found == [Extent(ByteRange(offset: 4096, length: 4096), .data)])
        found = []
        comparison.everything(source: nil, range: range, targetIsZero: false, into: &found)
        #expect(found == [Extent(range, .zero)])
    }
}
