// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import LogicalVolumes
import TestSupport
import Testing

@Suite struct ChangeMapTests {
    @Test func `ranges in any order become ascending ones that do not touch`() {
        let map = ChangeMap(
            [
                ByteRange(60, to: 80), ByteRange(0, to: 10), ByteRange(5, to: 20),
                ByteRange(20, to: 30),
            ],
            size: 100, oldSize: 100)
        #expect(map.ranges == [ByteRange(0, to: 30), ByteRange(60, to: 80)])
        #expect(map.byteCount == 50)
    }

    @Test func `ranges grow outwards to chunks, and end with the device`() {
        let map = ChangeMap(
            [ByteRange(9, to: 11), ByteRange(91, to: 92), ByteRange(200, to: 300)], chunk: 10,
            size: 95, oldSize: 95)
        #expect(map.ranges == [ByteRange(0, to: 20), ByteRange(90, to: 95)])
    }

    @Test func `bytes that the device grew by are changed, and a shrunk device loses its end`() {
        #expect(
            ChangeMap([], chunk: 8, size: 100, oldSize: 50).ranges == [ByteRange(48, to: 100)])
        #expect(ChangeMap([], size: 50, oldSize: 100).ranges == [])
        #expect(
            ChangeMap([ByteRange(40, to: 70)], size: 50, oldSize: 100).ranges
                == [ByteRange(40, to: 50)])
        #expect(ChangeMap([], size: 10, oldSize: 0).ranges == [ByteRange(0, to: 10)])
    }

    @Test func `ranges with the largest numbers do not overflow`() {
        let map = ChangeMap(
            [ByteRange(Int.max - 1, to: Int.max), ByteRange(0, to: 1)], chunk: 1 << 40,
            size: .max, oldSize: .max)
        #expect(map.ranges.map(\.offset) == [0, Int.max - Int.max % (1 << 40)])
        #expect(map.ranges.map(\.end) == [1 << 40, .max])
    }

    @Test(arguments: UInt64(0)..<200)
    func `a change map equals a table of changed bytes`(seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        let chunk = Int.random(in: 1...9, using: &random)
        let size = Int.random(in: 0...200, using: &random)
        let oldSize = Int.random(in: 0...200, using: &random)
        let ranges = (0..<Int.random(in: 0...12, using: &random)).map { _ in
            ByteRange(
                offset: Int.random(in: 0...220, using: &random),
                length: Int.random(in: 0...20, using: &random))
        }
        let map = ChangeMap(ranges, chunk: chunk, size: size, oldSize: oldSize)

        var changed = Set(oldSize..<max(oldSize, size))
        for range in ranges where range.offset < size {
            changed.formUnion(range.offset..<range.end)
        }
        changed = changed.filter { $0 < size }
        let chunks = Set(changed.map { $0 / chunk })
        let isChanged = (0..<size).map { chunks.contains($0 / chunk) }

        #expect(map.byteCount == isChanged.count { $0 })
        for offset in 0..<size {
            #expect(map.overlaps(ByteRange(offset: offset, length: 1)) == isChanged[offset])
            let start = isChanged[offset...].firstIndex(of: true)
            let next = map.next(from: offset)
            #expect(next?.offset == start)
            guard let start, let next else { continue }
            #expect(next.end == isChanged[start...].firstIndex(of: false) ?? size)
        }
        #expect(map.next(from: size) == nil)
    }

    @Test func `a range that starts before a change overlaps the map`() {
        let map = ChangeMap([ByteRange(50, to: 60)], size: 100, oldSize: 100)
        #expect(map.overlaps(ByteRange(0, to: 51)))
        #expect(!map.overlaps(ByteRange(0, to: 50)))
        #expect(!map.overlaps(ByteRange(60, to: 100)))
        #expect(!map.overlaps(ByteRange(offset: 55, length: 0)))
    }
}
