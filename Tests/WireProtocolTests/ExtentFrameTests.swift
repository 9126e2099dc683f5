// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import Digests
import LinuxIO
import Testing
import WireProtocol

/// What a stranger can put into the table of a read or write.
@Suite(.timeLimit(.minutes(60))) struct ExtentFrameTests {
    private let size = 1 << 20

    /// Offset and word of each entry, as they are on the wire.
    private func table(
        _ entries: [(UInt64, UInt64)], count: UInt32? = nil, reserved: UInt32 = 0
    ) -> [UInt8] {
        entries.flatMap { u64($0.0) + u64($0.1) } + u32(count ?? UInt32(entries.count))
            + u32(reserved)
    }

    private func rejectedRead(_ bytes: [UInt8], size: Int = 1 << 20) -> String? {
        rejection {
            try bytes.withUnsafeBytes {
                try ExtentFrame.readRequest($0, size: size, unit: 512)
            }
        }
    }

    private func rejectedPayload(_ bytes: [UInt8]) -> String? {
        rejection {
            try bytes.withUnsafeBytes { bytes in
                _ = try ExtentFrame.readPayload(bytes, size: size, unit: 512)
            }
        }
    }

    private let zero: UInt64 = 1 << 56

    @Test func `an extent table that is cut off is rejected`() {
        let request = table([(512, 512), (4096, 100)])
        #expect(rejectedRead(request) == nil)
        for start in 1...request.count {
            #expect(rejectedRead(Array(request[start...])) != nil)
            #expect(rejectedRead(Array(request.dropLast(start))) != nil)
        }
    }

    @Test func `a payload has exactly the data that its table says`() {
        let frame = [UInt8](repeating: 1, count: 700) + table([(512, 512), (2048, 188)])
        #expect(rejectedPayload(frame) == nil)
        let early = [UInt8](repeating: 1, count: 700) + table([(512, 600), (2048, 100)])
        #expect(rejectedPayload(early) != nil)
        for start in 1...frame.count {
            #expect(rejectedPayload(Array(frame[start...])) != nil)
            #expect(rejectedPayload(Array(frame.dropLast(start))) != nil)
        }
        #expect(rejectedPayload([0] + frame) != nil && rejectedPayload(frame + [0]) != nil)
        #expect(rejectedPayload(table([(0, zero | 1 << 20)])) == nil)
        #expect(rejectedPayload([0] + table([(0, zero | 512)])) != nil)
    }

    @Test func `the number of extents is at least one, and limited`() {
        #expect(rejectedRead(table([])) != nil)
        for count in [0, 2, 3, 8192, 8193, 1 << 28, 1 << 31, .max] as [UInt32] {
            #expect(rejectedRead(table([(0, 512)], count: count)) != nil)
        }
        let most = (0..<UInt64(Limits.extents)).map { ($0 * 512, zero | 512) }
        let one = UInt64(Limits.extents) * 512
        func payload(_ entries: [(UInt64, UInt64)]) -> String? {
            rejection {
                try table(entries).withUnsafeBytes {
                    _ = try ExtentFrame.readPayload($0, size: 1 << 30, unit: 512)
                }
            }
        }
        #expect(payload(most) == nil)
        #expect(payload(most + [(one, zero | 512)])?.contains("8193 extents") == true)
    }

    @Test func `reserved fields and unknown kinds of extents are rejected`() {
        for bit in 0..<32 {
            #expect(rejectedRead(table([(0, 512)], reserved: 1 << bit)) != nil)
        }
        for kind in 1...255 as ClosedRange<UInt64> {
            #expect(rejectedRead(table([(0, kind << 56 | 512)])) != nil)
            #expect((rejectedPayload(table([(0, kind << 56 | 512)])) == nil) == (kind == 1))
        }
    }

    @Test func `extents are within the device, also where the sum overflows`() {
        let end = UInt64(1 << 20)
        for (offset, length) in [
            (0, 0), (0, end + 1), (end, 1), (end - 512, 513), (.max - 511, 512), (1 << 63, 512),
            (UInt64(Int.max) / 512 * 512, 1 << 55), (0, 1 << 55), (end, 0),
        ] as [(UInt64, UInt64)] {
            #expect(rejectedRead(table([(offset, length)])) != nil, "\(offset) \(length)")
            #expect(rejectedPayload(table([(offset, zero | length)])) != nil)
        }
        #expect(rejectedRead(table([(end - 512, 512)])) == nil)
        let most = UInt64(Int.max) / 512 * 512
        #expect(rejectedRead(table([(most, 511)]), size: .max) == nil)
        #expect(rejectedRead(table([(most, 512)]), size: .max) != nil)
    }

    @Test func `extents ascend, do not overlap and are aligned`() {
        #expect(rejectedRead(table([(512, 512), (1024, 512)])) == nil)
        for bad in [
            [(1024, 512), (512, 512)], [(512, 513), (1024, 512)], [(512, 512), (512, 512)],
            [(0, 4096), (512, 512)], [(1, 512)], [(511, 512)], [(513, 1)],
        ] as [[(UInt64, UInt64)]] { #expect(rejectedRead(table(bad)) != nil) }
    }

    @Test func `the data of a payload is bounded, zeros are not`() {
        let payload = UInt64(Limits.payload)
        #expect(rejectedRead(table([(0, payload)]), size: 1 << 30) == nil)
        #expect(rejectedRead(table([(0, payload + 1)]), size: 1 << 30) != nil)
        #expect(rejectedRead(table([(0, payload), (payload, 1)]), size: 1 << 30) != nil)
        let zeros = table([(0, zero | (1 << 56 - 1))])
        #expect(
            rejection {
                try zeros.withUnsafeBytes {
                    _ = try ExtentFrame.readPayload($0, size: .max, unit: 512)
                }
            } == nil)
    }

    @Test func `an empty body is refused as a frame`() {
        let none = UnsafeRawBufferPointer(start: nil, count: 0)
        #expect(rejection { try ExtentFrame.readRequest(none, size: 512, unit: 1) } != nil)
        #expect(rejection { _ = try ExtentFrame.readPayload(none, size: 512, unit: 1) } != nil)
        #expect(rejection { try DataMap(none, range: ByteRange(offset: 0, length: 1)) } != nil)
    }
}

/// The digest at the end of each frame.
@Suite(.timeLimit(.minutes(60))) struct SealedFrameTests {
    private func hasher(_ name: String, key: UInt8 = 1) throws -> BlockHasher {
        try BlockHasher(
            try DigestMethod(named: name),
            key: try DigestKey([UInt8](repeating: key, count: DigestKey.byteCount)))
    }

    private func isOpened(_ frame: [UInt8], _ hasher: inout BlockHasher) -> Bool {
        frame.withUnsafeBytes { bytes in
            do throws(IOError) {
                _ = try SealedFrame.open(bytes, &hasher)
                return true
            } catch {
                #expect(error.kind == .corrupted)
                return false
            }
        }
    }

    @Test(arguments: ["gmac", "poly1305", "sha256", "blake2b512", "sha1"])
    func `any changed bit, and any missing byte, of a sealed frame is found`(name: String) throws {
        var hasher = try hasher(name)
        let frame = try sealed(Array("the content".utf8), &hasher)
        #expect(isOpened(frame, &hasher))
        for bit in 0..<8 * frame.count {
            var changed = frame
            changed[bit / 8] ^= 1 << (bit % 8)
            #expect(!isOpened(changed, &hasher))
        }
        for count in 0..<frame.count { #expect(!isOpened(Array(frame[..<count]), &hasher)) }
        #expect(!isOpened(frame + [0], &hasher))
    }

    @Test func `an empty body can be sealed, and an empty frame is refused`() throws {
        var hasher = try hasher("poly1305")
        #expect(isOpened(try sealed([], &hasher), &hasher))
        #expect(!isOpened([], &hasher))
    }

    @Test func `another key opens no sealed frame`() throws {
        var mine = try hasher("poly1305")
        var theirs = try hasher("poly1305", key: 2)
        #expect(!isOpened(try sealed([1, 2, 3], &mine), &theirs))
    }
}
