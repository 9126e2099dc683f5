// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import Digests
import LinuxIO
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(60))) struct WindowHasherTests {
    private let layout = BlockLayout(block: 512, region: 2048)

    private func digests(
        _ hasher: inout WindowHasher, _ range: ByteRange, on device: MemoryDevice, isHole: Bool,
        slot: Int
    ) throws -> [UInt8] {
        let memory = AlignedBuffer(count: range.length)
        try hasher.hashRegions(
            of: range, on: device, isHole: isHole, memory: memory.bytes, slot: slot)
        let count = layout.regions(of: [range]).count
        return Array(
            hasher.regionDigests[slot * hasher.digestSize..<(slot + count) * hasher.digestSize])
    }

    @Test(arguments: [.gmac, .poly1305, try? DigestMethod(named: "sha256")].compactMap { $0 })
    func `regions have the digests of their bytes, whether these are read or known to be zeros`(
        method: DigestMethod
    ) throws {
        var random = SeededGenerator(seed: 7)
        let key = try DigestKey(random.bytes(DigestKey.byteCount))
        // Five whole regions of data, then two regions and a bit of zeros.
        let content = random.bytes(5 * 2048) + [UInt8](repeating: 0, count: 2 * 2048 + 700)
        let device = MemoryDevice(content, alignment: 1)
        var hasher = try WindowHasher(layout, window: 8 * 2048, method, key: key)
        let data = ByteRange(2048, to: 5 * 2048)
        let hole = ByteRange(5 * 2048, to: content.count)
        for (range, isHole, slot) in [(data, false, 0), (hole, false, 4), (hole, true, 5)] {
            let expected = try range.pieces(of: 2048).flatMap {
                try oneShot(method, key, Array(content[$0.offset..<$0.end]))
            }
            let found = try digests(&hasher, range, on: device, isHole: isHole, slot: slot)
            #expect(found == expected, "\(range), \(isHole)")
        }
        #expect(try hasher.zeroDigest == oneShot(method, key, [UInt8](repeating: 0, count: 2048)))
    }

    @Test func `blocks of zeros are marked and have no digest, read or known to be zeros`() throws {
        var hasher = try WindowHasher(layout, window: 2048, .poly1305, key: DigestKey())
        let region =
            [UInt8](repeating: 1, count: 512) + [UInt8](repeating: 0, count: 1024)
            + [UInt8](repeating: 2, count: 512)
        try region.withUnsafeBytes { try hasher.hashBlocks(of: $0) }
        #expect(Array(hasher.zeroBlocks) == [false, true, true, false])
        #expect(hasher.blockDigests[16..<48].allSatisfy { $0 == 0 })
        #expect(!hasher.blockDigests[..<16].allSatisfy { $0 == 0 })
        try hasher.hashBlocks(of: nil)
        #expect(hasher.zeroBlocks.allSatisfy { $0 } && hasher.blockDigests.allSatisfy { $0 == 0 })
    }
}
