// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import Digests
import Testing
import WireProtocol

/// What a stranger can put into the frames of a comparison.
@Suite(.timeLimit(.minutes(60))) struct CompareFrameTests {
    let layout = BlockLayout(block: 512, region: 1024)
    /// Four regions and a bit, so that the last one is short.
    let size = 4 * 1024 + 100

    private func request(
        kind: UInt32 = 1, count: UInt32? = nil, _ offset: UInt64, _ length: UInt64,
        digests: Int = 0
    ) -> [UInt8] {
        u32(kind) + u32(count ?? (kind == 1 ? 1 : 0)) + u64(offset) + u64(length)
            + [UInt8](repeating: 7, count: digests * 16)
    }

    private func request(_ window: [(UInt64, UInt64)], digests: Int) -> [UInt8] {
        u32(1) + u32(UInt32(window.count)) + window.flatMap { u64($0.0) + u64($0.1) }
            + [UInt8](repeating: 7, count: digests * 16)
    }

    private func rejected(_ bytes: [UInt8]) -> String? {
        rejection {
            try bytes.withUnsafeBytes {
                try CompareRequest($0, layout: layout, digestSize: 16, size: size)
            }
        }
    }

    @Test func `the last region before the largest number is no longer than the range`() {
        let range = ByteRange(offset: Int.max - 1023, length: 1023)
        #expect(layout.regions(of: [range]) == [range])
        #expect(range.pieces(of: 1024) == [range])
    }

    @Test func `a compare request that ends too early or too late is rejected`() {
        let whole = request(1024, 2148, digests: 3)
        #expect(rejected(request(1024, 2148, digests: 3)) == nil)
        for count in 0..<whole.count { #expect(rejected(Array(whole[..<count])) != nil) }
        #expect(rejected(whole + [0])?.contains("follow") == true)
        let map = request(kind: 2, 0, 4096)
        #expect(rejected(map) == nil)
        for count in 0..<map.count { #expect(rejected(Array(map[..<count])) != nil) }
        #expect(rejected(map + [0])?.contains("follow") == true)
    }

    @Test func `the ranges of a window ascend and are of whole regions but for the end`() {
        #expect(rejected(request([(0, 1024), (2048, 2148)], digests: 4)) == nil)
        #expect(rejected(request([(0, 1024), (1024, 1024)], digests: 2)) == nil)
        #expect(rejected(request([(0, 1024), (3072, 1000)], digests: 2)) == nil)
        for (window, digests) in [
            ([], 0), ([(1024, 1024), (0, 1024)], 2), ([(0, 2048), (1024, 1024)], 3),
            ([(0, 1024), (0, 1024)], 2), ([(0, 1000), (1024, 1024)], 2),
            ([(0, 1024), (2048, 0)], 1), ([(0, 1024), (2560, 512)], 2),
            ([(0, 1024), (4096, 101)], 2), ([(0, 1024), (2048, 2148)], 3),
            ([(0, 1024), (2048, 2148)], 5), ([(0, 1024), (.max, 1)], 2),
        ] as [([(UInt64, UInt64)], Int)] {
            #expect(rejected(request(window, digests: digests)) != nil, "\(window)")
        }
    }

    @Test func `the ranges of a window together are no longer than the limits`() {
        let half = Limits.window / 2
        let halves = [0, 2 * half].map { ByteRange(offset: $0, length: half) }
        #expect(rejection { try layout.check(halves, size: .max) } == nil)
        let more = halves + [ByteRange(offset: 4 * half, length: 1)]
        #expect(rejection { try layout.check(more, size: .max) } != nil)
        let blocks = BlockLayout(block: 512, region: 512)
        func single(_ count: Int) -> [ByteRange] {
            (0..<count).map { ByteRange(offset: $0 * 1024, length: 512) }
        }
        #expect(rejection { try blocks.check(single(Limits.blocks), size: .max) } == nil)
        #expect(rejection { try blocks.check(single(Limits.blocks + 1), size: .max) } != nil)
    }

    @Test func `a compare request of another kind or with a wrong count of ranges is rejected`() {
        #expect(rejected(request(kind: 0, 0, 1024, digests: 1)) == "compare: kind 0 is unknown")
        #expect(rejected(request(kind: 3, 0, 1024, digests: 1)) == "compare: kind 3 is unknown")
        #expect(rejected(request(kind: .max, 0, 1024)) != nil)
        for bit in 0..<32 {
            let map = rejected(request(kind: 2, count: 1 << bit, 0, 1024))
            #expect(map == "a reserved field is not 0")
            guard bit > 0 else { continue }
            #expect(rejected(request(count: 1 << bit, 0, 1024, digests: 1)) != nil)
        }
        #expect(rejected(request(count: 0, 0, 1024, digests: 1)) == "compare: no range")
    }

    @Test(arguments: [1, 2] as [UInt32])
    func `a compare request that leaves the device is rejected`(kind: UInt32) {
        for (offset, length) in [
            (0, 0), (0, 4197), (4096, 101), (5120, 1), (1024, .max), (.max, 1), (.max, .max),
            (1 << 63, 1 << 63), (1 << 62, 1 << 62), (UInt64(Int.max), 1),
            (0, UInt64(Int.max)), (UInt64(Int.max), UInt64(Int.max)), (0, 1 << 63),
        ] as [(UInt64, UInt64)] {
            #expect(rejected(request(kind: kind, offset, length, digests: 1)) != nil)
        }
    }

    @Test func `a window starts at a region and is no longer than the limits`() {
        #expect(rejected(request(512, 1024, digests: 1))?.contains("region") == true)
        #expect(rejected(request(1, 1024, digests: 1))?.contains("region") == true)
        let large = ByteRange(offset: 0, length: Limits.window)
        #expect(rejection { try layout.check([large], size: .max) } == nil)
        let larger = ByteRange(offset: 0, length: Limits.window + 1)
        #expect(rejection { try layout.check([larger], size: .max) } != nil)
        let huge = ByteRange(offset: 0, length: .max)
        #expect(rejection { try layout.check([huge], size: .max) } != nil)
    }

    @Test func `a map answer that is not ascending, or not of the range, is rejected`() {
        let range = ByteRange(offset: 4096, length: 8192)
        func rejected(_ bytes: [UInt8]) -> String? {
            rejection { try bytes.withUnsafeBytes { try DataMap($0, range: range) } }
        }
        func map(end: UInt64 = 12288, count: Int? = nil, reserved: UInt32 = 0, _ runs: [UInt64])
            -> [UInt8]
        {
            u64(end) + u32(UInt32(count ?? runs.count / 2)) + u32(reserved)
                + runs.flatMap { u64($0) }
        }
        let good = map([4096, 512, 4608, 512, 8192, 4096])
        #expect(rejected(good) == nil)
        for count in 0..<good.count { #expect(rejected(Array(good[..<count])) != nil) }
        for bad in [
            good + [0], map(end: 4096, []), map(end: 12289, []), map(end: 0, []),
            map(end: .max, []), map(reserved: 1, []), map(count: 1, []),
            map(count: Limits.runs + 1, []), map(count: Int(UInt32.max), []),
            map([4095, 512]), map([12288, 1]), map([4096, 8193]), map([4096, 0]),
            map([8192, 512, 4096, 512]), map([4096, 1024, 4608, 1024]),
            map([4096, 512, 4096, 512]),
            map([.max, .max]), map([1 << 62, 1 << 62]), map([UInt64(Int.max), UInt64(Int.max)]),
            map(end: 8192, [4096, 4097]),
        ] { #expect(rejected(bad) != nil) }
    }
}

/// What a server can put into its answer.
@Suite(.timeLimit(.minutes(60))) struct CompareAnswerTests {
    let layout = BlockLayout(block: 512, region: 8192)
    /// A region of 16 blocks, and a last one of 3.
    let range = ByteRange(offset: 8192, length: 8192 + 1100)

    private func rejected(_ bytes: [UInt8]) -> String? {
        rejection {
            try bytes.withUnsafeBytes { bytes in
                _ = try CompareAnswer.read(
                    bytes, regions: layout.regions(of: [range]), layout: layout, digestSize: 2)
            }
        }
    }

    private func entry(_ index: UInt32, marks: [UInt8], blocks: Int) -> [UInt8] {
        let digests = (0..<blocks).flatMap { block in
            let isZero = marks[block / 8] >> (block % 8) & 1 == 1
            return [UInt8](repeating: isZero ? 0 : 9, count: 2)
        }
        return u32(index) + marks + digests
    }

    private var first: [UInt8] { entry(0, marks: [1, 0x80], blocks: 16) }
    private var second: [UInt8] { entry(1, marks: [5], blocks: 3) }

    @Test func `zero marks and digests are those of the blocks`() throws {
        try (u32(2) + first + second).withUnsafeBytes { bytes in
            let found = try CompareAnswer.read(
                bytes, regions: layout.regions(of: [range]), layout: layout, digestSize: 2)
            #expect(found.map(\.index) == [0, 1])
            #expect((0..<16).filter { found[0].isZero(block: $0) } == [0, 15])
            #expect((0..<3).filter { found[1].isZero(block: $0) } == [0, 2])
            #expect(found.map(\.digests.count) == [32, 6])
        }
    }

    @Test func `a compare answer that ends too early or too late is rejected`() {
        let whole = u32(2) + first + second
        #expect(rejected(whole) == nil && rejected(u32(0)) == nil)
        for count in 0..<whole.count { #expect(rejected(Array(whole[..<count])) != nil) }
        #expect(rejected(whole + [0]) != nil && rejected(u32(0) + [0]) != nil)
    }

    @Test func `the regions of a compare answer are the window's, ascending, each once`() {
        for bad in [
            u32(2) + second + first, u32(2) + first + first, u32(3) + first + second + second,
            u32(1) + entry(2, marks: [0], blocks: 3), u32(1) + entry(.max, marks: [0], blocks: 3),
            u32(3), u32(.max), u32(.max) + first,
        ] { #expect(rejected(bad) != nil) }
    }

    @Test func `a zero block with a digest other than zeros is rejected`() {
        let marks: [UInt8] = [1, 0x80]
        let good = entry(0, marks: marks, blocks: 16)
        #expect(rejected(u32(1) + good) == nil)
        // The digests of the first and the last block, which are marked.
        for place in [6, 7, good.count - 2, good.count - 1] {
            var bad = good
            bad[place] = 1
            #expect(rejected(u32(1) + bad)?.contains("zero block") == true, "\(place)")
        }
        // A computed digest may happen to be zeros.
        var other = good
        (other[8], other[9]) = (0, 0)
        #expect(rejected(u32(1) + other) == nil)
    }

    @Test func `a zero mark beyond the region's blocks is rejected`() {
        for bit in 3..<8 {
            let marks = [UInt8(1) << bit]
            #expect(rejected(u32(1) + entry(1, marks: marks, blocks: 3))?.contains("mark") == true)
        }
        #expect(rejected(u32(1) + entry(1, marks: [7], blocks: 3)) == nil)
    }
}
