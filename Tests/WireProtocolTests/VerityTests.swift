// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import TestSupport
import Testing
import WireProtocol

/// The layout of a dm-verity tree, its superblock, and blkferry's line behind the tree.
@Suite struct VerityTests {
    @Test func `levels are as the kernel computes them`() {
        for size in Self.sizes {
            let shape = VerityShape(size: size)
            // `verity_ctr`, by powers of two.
            let blocks = size / 4096
            var levels = 0
            while blocks > 0, 7 * levels < 64, (blocks - 1) >> (7 * levels) > 0 { levels += 1 }
            #expect(shape.levels.count == levels)
            var position = 1
            for level in (0..<levels).reversed() {
                let count = (blocks + 1 << (7 * (level + 1)) - 1) >> (7 * (level + 1))
                #expect(
                    shape.levels[level]
                        == ByteRange(offset: position * 4096, length: count * 4096))
                position += count
            }
            #expect(shape.end == position * 4096)
            #expect(shape.tail == ByteRange(blocks * 4096, to: size))
        }
    }

    private static let sizes: [Int] = {
        var sizes = [0, 1, 4095, 4096, 4097, 8192, Geometry.maximumSize]
        for level in 1...6 {
            sizes += [-4096, -1, 0, 1, 4096].map { (4096 << (7 * level)) + $0 }
        }
        return sizes
    }()

    @Test func `a superblock has the bytes of veritysetup`() throws {
        var block = try VeritySuperblock(blocks: 0x0102_0304, root: [1, 2, 3])
        block.uuid = Array(0..<16)
        let expected: [UInt8] =
            Array("verity\0\0".utf8) + [1, 0, 0, 0, 1, 0, 0, 0] + Array(0..<16)
            + Array("sha256".utf8) + [UInt8](repeating: 0, count: 26)
            + [0, 16, 0, 0, 0, 16, 0, 0, 4, 3, 2, 1, 0, 0, 0, 0]
        #expect(block.bytes == expected + [UInt8](repeating: 0, count: 512 - expected.count))
        #expect(try VeritySuperblock(block.bytes) == block)
    }

    @Test(arguments: [8, 12, 38, 40, 65, 69, 79, 80])
    func `a superblock of another kind is refused`(place: Int) throws {
        var bytes = try VeritySuperblock(blocks: 10, root: []).bytes
        bytes[place] ^= 0x40
        #expect(throws: WireError.self) { try VeritySuperblock(bytes) }
    }

    @Test(arguments: [3, 4095, 4096, 1_000_000]) func `a seal is read again`(size: Int) throws {
        var random = SeededGenerator(seed: 1)
        let superblock = random.bytes(512)
        let tail = size % 4096 == 0 ? nil : random.bytes(32)
        let seal = VeritySeal(deviceSize: size, .init(root: random.bytes(32), tail: tail))
        let bytes = try seal.bytes(after: superblock)
        #expect(bytes.count == 4096)
        #expect(try VeritySeal(bytes, after: superblock) == seal)
        for place in 0..<300 {
            var other = bytes
            other[place] ^= 1
            #expect(throws: WireError.self) { try VeritySeal(other, after: superblock) }
        }
        #expect(throws: WireError.self) { try VeritySeal(bytes, after: random.bytes(512)) }
    }

    @Test(arguments: [
        "", "ab", String(repeating: "g", count: 64), String(repeating: "a", count: 66),
        String(repeating: "a", count: 64) + ":", ":" + String(repeating: "a", count: 64),
        String(repeating: "a", count: 64) + ":ab",
    ])
    func `other texts pin nothing`(text: String) { #expect(VerityDigests(text) == nil) }
}
