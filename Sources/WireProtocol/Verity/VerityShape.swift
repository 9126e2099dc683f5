// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices

/// The sizes and places of a dm-verity hash tree in its file, in bytes.
///
/// A level has one digest for each block of the level below it; the lowest has one for each block
/// of the device. The highest has one block, whose digest is the root hash. In the file the highest
/// comes first. A device of one block has no level, and its block's digest is the root hash.
///
/// Source: `verity_ctr` in the kernel's drivers/md/dm-verity-target.c, and lib/verity of cryptsetup.
package struct VerityShape: Hashable, Sendable {
    /// Bytes of a block of the device, and of one of the tree.
    package static let block = 4096
    /// Bytes of a digest, SHA-256.
    package static let digest = 32
    package static let digestsInBlock = block / digest

    /// Bytes of the device.
    package let size: Int
    /// Places of the levels in the file, the lowest first.
    package let levels: [ByteRange]

    /// - Parameter size: bytes of the device, 0 to `Geometry.maximumSize`.
    package init(size: Int) {
        precondition((0...Geometry.maximumSize).contains(size))
        self.size = size
        var counts: [Int] = []
        var blocks = size / Self.block
        while blocks > 1 {
            blocks = blocks.roundedUp(to: Self.digestsInBlock) / Self.digestsInBlock
            counts.append(blocks)
        }
        // The superblock has the first block.
        var place = Self.block
        var levels: [ByteRange] = []
        for count in counts.reversed() {
            // At most 2^41 blocks, since the size is limited.
            levels.append(ByteRange(offset: place, length: count * Self.block))
            place += count * Self.block
        }
        self.levels = levels.reversed()
    }

    /// Whole blocks of the device.
    package var blocks: Int { size / Self.block }

    /// The bytes of the device behind the last whole block.
    package var tail: ByteRange { ByteRange(size / Self.block * Self.block, to: size) }

    /// The end of the tree in its file.
    package var end: Int { levels.first?.end ?? Self.block }

    /// The place of a digest in the file.
    ///
    /// - Parameters:
    ///   - index: of the block whose digest it is, in the level below, or on the device.
    ///   - level: 0 for the digests of the device's blocks.
    package func place(ofDigest index: Int, level: Int) -> Int {
        levels[level].offset + index * Self.digest
    }
}
