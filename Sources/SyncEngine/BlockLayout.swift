// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices

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

    /// Among 256 KiB to 2 MiB none was faster on two processors; see
    /// docs/decisions/0007-windows-and-huge-pages.md.
    private static let windowAim = 1 << 20
    private static let regionAim = 64 << 10

    /// - Parameter block: a multiple of 512 within `blockSizes`.
    package init(block: Int = Self.defaultBlock) {
        precondition(Self.blockSizes.contains(block) && block % 512 == 0)
        var region = block
        while region < Self.regionAim { region *= 2 }
        self.block = block
        self.region = region
        window = max(1, Self.windowAim / region) * region
    }

    /// Bytes of a window for comparisons by digests.
    ///
    /// It is long so that the digests outweigh the headers of a request, and few requests hide a
    /// long round trip.
    package var remoteWindow: Int { max(1, Self.remoteWindowAim / window) * window }

    /// Bytes of such a window while much of it differs; it fits in a worker's memory and is read
    /// once.
    package var denseWindow: Int { min(2 * window, remoteWindow) }

    private static let remoteWindowAim = 16 << 20

    /// For a range that starts with a block.
    func blocks(in range: ByteRange) -> Int { (range.length + block - 1) / block }
}
