// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

/// The sizes of blocks, regions and windows in bytes.
package struct BlockLayout: Hashable, Sendable {
    /// The unit of fine comparison and of transfer.
    package let block: Int
    /// The unit of coarse comparison; a power of two times the block.
    package let region: Int
    /// A worker's unit of work; whole regions.
    package let window: Int

    /// The page and sector size of current machines, so smaller units do not change alone.
    package static let defaultBlock = 4 << 10

    /// Multiples of the smallest sector; memory holds two windows of the largest for each worker.
    package static let blockSizes = 512...(16 << 20)

    /// Bytes that a region has at least.
    package static let smallestRegion = 64 << 10

    /// Among 256 KiB to 2 MiB none was faster on two processors; see
    /// docs/decisions/0007-windows-and-huge-pages.md.
    private static let windowAim = 1 << 20

    /// Doubles the block for the region; client and server must compute the same.
    ///
    /// - Parameter block: must satisfy `isBlock`.
    package init(block: Int = Self.defaultBlock) {
        precondition(Self.isBlock(block))
        var region = block
        while region < Self.smallestRegion { region *= 2 }
        self.init(block: block, region: region)
    }

    /// A layout with other regions, for tests of frames.
    package init(block: Int, region: Int) {
        precondition(region % block == 0 && (region / block).nonzeroBitCount == 1)
        self.block = block
        self.region = region
        window = max(1, Self.windowAim / region) * region
    }

    /// Whether a block can have `size` bytes.
    package static func isBlock(_ size: Int) -> Bool {
        blockSizes.contains(size) && size % 512 == 0
    }

    /// Bytes of a window for comparisons by digests, at most `longestWindow`.
    ///
    /// It is long so that the digests outweigh the headers of a request, and few requests hide a
    /// long round trip.
    package var remoteWindow: Int { max(1, Self.longestWindow / window) * window }

    /// Bytes of such a window while much of it differs; it fits in a worker's memory and is read
    /// once.
    package var denseWindow: Int { min(2 * window, remoteWindow) }

    /// The largest block is a window of its own.
    package static let longestWindow = blockSizes.upperBound

    /// For a range that starts with a block.
    package func blocks(in range: ByteRange) -> Int { (range.length + block - 1) / block }

    /// The regions of ranges that start with a region; the last one of a range may be cut off.
    package func regions(of ranges: [ByteRange]) -> [ByteRange] {
        ranges.flatMap { $0.pieces(of: region) }
    }
}
