// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import LinuxIO
import TestSupport
import Testing

@testable import BlockDevices

private let KiB = 1 << 10

@Suite struct ThinChunksTests {
    @Test func `a range has the chunks that it covers, and the chunks that it touches`() {
        let chunks = ThinChunks(size: 192, areZeroed: false)
        for (range, whole, widened) in [
            (0..<192, 0..<192, 0..<192), (1..<192, 192..<192, 0..<192),
            (0..<191, 0..<0, 0..<192), (191..<577, 192..<576, 0..<768),
            (576..<1000, 576..<960, 576..<1000), (200..<300, 384..<384, 192..<384),
        ] {
            let range = ByteRange(range.lowerBound, to: range.upperBound)
            #expect(chunks.whole(of: range) == ByteRange(whole.lowerBound, to: whole.upperBound))
            #expect(
                chunks.widened(range, in: 1000)
                    == ByteRange(widened.lowerBound, to: widened.upperBound))
        }
    }
}

@Suite(.blocking, .enabled(if: isRoot, "loop devices need root")) struct ThinVolumeFileTests {
    private func open(_ loop: LoopDevice, areZeroed: Bool) throws -> BlockSpecialFile {
        try BlockSpecialFile(
            path: loop.path, name: loop.path, access: .readWrite,
            thin: ThinChunks(size: 64 * KiB, areZeroed: areZeroed))
    }

    @Test func `whole chunks of zeros are discarded, ragged edges are written`() throws {
        let loop = try LoopDevice(size: 256 * KiB)
        let device = try open(loop, areZeroed: true)
        var random = SeededGenerator(seed: 7)
        var expected = random.bytes(256 * KiB)
        try device.write(expected, at: 0)
        try device.flush()
        let before = try FileStatus(path: loop.backingFile).allocated
        // From the middle of the first chunk to that of the last one.
        let range = ByteRange(32 * KiB, to: 224 * KiB)
        try device.zero(range)
        try device.flush()
        for index in range.offset..<range.end { expected[index] = 0 }
        #expect(try device.content() == expected)
        let after = try FileStatus(path: loop.backingFile).allocated
        #expect(before - after == 128 * KiB)
    }

    @Test func `chunks that the pool does not zero are written as a whole`() throws {
        let loop = try LoopDevice(size: 224 * KiB)
        let device = try open(loop, areZeroed: false)
        #expect(device.geometry.alignment == 64 * KiB)
        try device.write([UInt8](repeating: 1, count: 512), at: 64 * KiB)
        try device.flush()
        #expect(try FileStatus(path: loop.backingFile).allocated == 64 * KiB)
        // The last chunk is a part of one.
        try device.write([UInt8](repeating: 2, count: 700), at: 192 * KiB)
        try device.zero(ByteRange(offset: 192 * KiB, length: 100))
        var expected = [UInt8](repeating: 0, count: 224 * KiB)
        for index in 0..<512 { expected[64 * KiB + index] = 1 }
        for index in 100..<700 { expected[192 * KiB + index] = 2 }
        #expect(try device.content() == expected)
        try device.flush()
        #expect(try FileStatus(path: loop.backingFile).allocated == 96 * KiB)
    }

    @Test func `the size of a resized device is read again`() throws {
        let loop = try LoopDevice(size: 1 << 20)
        let device = try BlockSpecialFile(path: loop.path, name: loop.path, access: .readWrite)
        try must("truncate", "-s", "3M", loop.backingFile)
        try must("losetup", "-c", loop.path)
        #expect(device.geometry.size == 1 << 20)
        try device.readSize()
        #expect(device.geometry.size == 3 << 20)
        try device.write([UInt8](repeating: 5, count: 4096), at: 2 << 20)
    }
}
