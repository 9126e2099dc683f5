// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Digests
import LinuxIO
import Testing
import WireProtocol
import Zstandard

/// What a stranger, or a bad line, can make of a packed payload.
@Suite(.timeLimit(.minutes(60))) struct PackedFrameTests {
    private let content = [UInt8]((0..<4096).map { UInt8($0 & 3) })

    private func zstd(_ bytes: [UInt8]) throws -> [UInt8] {
        let context = try #require(ZstdContext(), "\(Zstd.fault ?? "no memory")")
        var memory = [UInt8](repeating: 0, count: bytes.count)
        let length = bytes.withUnsafeBytes { bytes in
            memory.withUnsafeMutableBytes { context.compress(bytes, into: $0, level: 1) }
        }
        let end = try #require(length)
        return Array(memory[..<end])
    }

    private func frame(_ content: [UInt8], count: Int, coding: UInt32) -> [UInt8] {
        content + u32(UInt32(count)) + u32(coding)
    }

    /// Unpacks a frame; `nil` if it is corrupted.
    private func unpacked(_ frame: [UInt8]) throws -> [UInt8]? {
        let context = try #require(ZstdContext())
        return frame.withUnsafeBytes { bytes -> [UInt8]? in
            do throws(IOError) {
                let packed = try PackedFrame(bytes)
                #expect(packed.count <= Limits.body)
                if packed.coding == .plain { return Array(packed.content) }
                let memory = UnsafeMutableRawBufferPointer.allocate(
                    byteCount: packed.count, alignment: 8)
                defer { memory.deallocate() }
                return Array(try packed.unpacked(into: memory, context))
            } catch {
                #expect(error.kind == .corrupted)
                return nil
            }
        }
    }

    @Test func `a payload is packed as it is, or smaller`() throws {
        let small = try zstd(content)
        #expect(small.count < 200)
        #expect(try unpacked(frame(content, count: 4096, coding: 0)) == content)
        #expect(try unpacked(frame(small, count: 4096, coding: 1)) == content)
    }

    @Test func `a packed payload with another size than it announces is refused`() throws {
        let small = try zstd(content)
        for count in [0, 1, 4095, 4097, 1 << 20, Limits.body, Limits.body + 1, 1 << 31] {
            #expect(try unpacked(frame(small, count: count, coding: 1)) == nil, "\(count)")
            #expect(try unpacked(frame(content, count: count, coding: 0)) == nil, "\(count)")
        }
    }

    @Test func `a packed payload that is cut off, or of an unknown coding, is refused`() throws {
        let small = frame(try zstd(content), count: 4096, coding: 1)
        for count in 0..<small.count { #expect(try unpacked(Array(small[..<count])) == nil) }
        for start in 1..<small.count { #expect(try unpacked(Array(small[start...])) == nil) }
        for coding in [2, 3, 256, 1 << 31] as [UInt32] {
            #expect(try unpacked(frame(content, count: 4096, coding: coding)) == nil)
        }
    }

    /// RFC 8878: a block of up to 128 KiB that repeats one byte has four bytes.
    private func bomb(_ size: Int) -> [UInt8] {
        var bytes: [UInt8] = [0x28, 0xB5, 0x2F, 0xFD, 0xE0] + u64(size)
        var left = size
        while left > 0, bytes.count < 1 << 20 {
            let length = min(left, 128 << 10)
            left -= length
            bytes += u32(UInt32(length << 3 | 2 | (left == 0 ? 1 : 0))).prefix(3)
            bytes.append(0)
        }
        return bytes
    }

    @Test func `a bomb is refused by its size before any memory is taken`() throws {
        let size = 1 << 30
        let bytes = bomb(size)
        #expect(bytes.count < 1 << 16)
        for count in [size, Limits.body] {
            for coding in [1, 0] as [UInt32] {
                let packed = frame(bytes, count: count, coding: coding)
                // Nothing after the parser takes memory for it.
                #expect(packed.withUnsafeBytes { (try? PackedFrame($0)) == nil })
            }
        }
        // The same as a payload that is allowed.
        let allowed = try unpacked(frame(bomb(1 << 20), count: 1 << 20, coding: 1))
        #expect(allowed == [UInt8](repeating: 0, count: 1 << 20))
    }

    @Test func `no flipped bit of a packed payload passes unpacking and the seal`() throws {
        var hasher = try BlockHasher(try DigestMethod(named: "sha256"), key: nil)
        let sealed = try sealed(content, &hasher)
        let good = frame(try zstd(sealed), count: sealed.count, coding: 1)
        for bit in 0..<8 * good.count {
            var changed = good
            changed[bit / 8] ^= 1 << UInt8(bit % 8)
            guard let unpacked = try unpacked(changed) else { continue }
            let opened = unpacked.withUnsafeBytes { bytes in
                (try? SealedFrame.open(bytes, &hasher)).map { Array($0) }
            }
            // Some bits of a zstd frame have no meaning.
            #expect(opened == nil || opened == content, "bit \(bit)")
        }
    }
}
