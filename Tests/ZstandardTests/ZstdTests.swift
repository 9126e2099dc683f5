// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import TestSupport
import Testing
import Zstandard

/// libzstd as it is loaded.
@Suite(.timeLimit(.minutes(60))) struct ZstdTests {
    /// Bytes with three bits of information each.
    static func compressible(_ count: Int, seed: UInt64) -> [UInt8] {
        var random = SeededGenerator(seed: seed)
        return random.bytes(count).map { $0 & 7 }
    }

    private func compressed(_ bytes: [UInt8], level: Int, room: Int? = nil) throws -> [UInt8]? {
        let context = try #require(ZstdContext(), "\(Zstd.fault ?? "no memory")")
        var memory = [UInt8](repeating: 0, count: room ?? bytes.count)
        let length = bytes.withUnsafeBytes { bytes in
            memory.withUnsafeMutableBytes { context.compress(bytes, into: $0, level: level) }
        }
        return length.map { Array(memory[..<$0]) }
    }

    private func decompressed(_ frame: [UInt8], count: Int) throws -> [UInt8]? {
        let context = try #require(ZstdContext())
        var memory = [UInt8](repeating: 0, count: count)
        let isDone = frame.withUnsafeBytes { frame in
            memory.withUnsafeMutableBytes { context.decompress(frame, into: $0) }
        }
        return isDone ? memory : nil
    }

    private func size(_ frame: [UInt8]) -> Int? {
        frame.withUnsafeBytes { Zstd.contentSize(of: $0) }
    }

    @Test(arguments: [1, 3, 9])
    func `a zstd frame announces its size and decompresses to the same bytes`(level: Int) throws {
        let bytes = Self.compressible(100_000, seed: 1)
        let frame = try #require(try compressed(bytes, level: level))
        #expect(frame.count < bytes.count / 2 && size(frame) == bytes.count)
        #expect(try decompressed(frame, count: bytes.count) == bytes)
    }

    @Test func `random bytes do not become smaller`() throws {
        var random = SeededGenerator(seed: 2)
        #expect(try compressed(random.bytes(100_000), level: 1) == nil)
    }

    @Test func `a zstd frame that is cut off, followed by bytes or doubled has no size`() throws {
        let frame = try #require(try compressed(Self.compressible(10_000, seed: 3), level: 1))
        #expect(size([]) == nil && size([1, 2, 3]) == nil)
        for count in 0..<frame.count { #expect(size(Array(frame[..<count])) == nil) }
        #expect(size(frame + [0]) == nil && size(frame + frame) == nil)
        // A skippable frame of four bytes, RFC 8878, section 3.1.2.
        let skippable: [UInt8] = [0x50, 0x2A, 0x4D, 0x18, 4, 0, 0, 0, 1, 2, 3, 4]
        #expect(size(skippable + frame) == nil && size(skippable) == nil)
    }

    /// Debian's libzstd still decompresses the formats from before RFC 8878.
    @Test func `a frame of an older format has no size`() throws {
        // zstd v0.7: its magic number, one segment with a size of four bytes, a raw block, the end.
        let header: [UInt8] = [0xB5, 0x2F, 0xFD, 0x20, 4, 0x40, 0, 4, 1, 2, 3, 4, 0xC0, 0, 0]
        for version in 0x22...0x27 { #expect(size([UInt8(version)] + header) == nil) }
    }

    @Test func `a zstd frame decompresses into memory of its size only`() throws {
        let frame = try #require(try compressed(Self.compressible(10_000, seed: 4), level: 1))
        for count in [0, 1, 9_999, 10_001, 1 << 20] {
            #expect(try decompressed(frame, count: count) == nil, "\(count)")
        }
    }

    /// RFC 8878: a header with a size of eight bytes, and one block that repeats a byte.
    @Test func `the announced size of a bomb is known before any memory is taken`() throws {
        let header: [UInt8] = [0x28, 0xB5, 0x2F, 0xFD, 0xE0]
        let block: [UInt8] = [0x03, 0, 0, 0]
        #expect(size(header + [0, 0, 0, 0, 0, 1, 0, 0] + block) == 1 << 40)
        #expect(size(header + [UInt8](repeating: 0xFF, count: 8) + block) == nil)
    }
}
