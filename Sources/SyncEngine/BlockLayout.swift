// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices

/// How a device is cut up for comparing: blocks in regions in windows, sizes in bytes.
package struct BlockLayout: Hashable, Sendable {
    /// The unit of fine comparison and of transfer.
    package let block: Int
    /// The unit of coarse comparison: a power-of-two number of blocks.
    package let region: Int
    /// What one worker reads and compares in one go: whole regions.
    package let window: Int

    /// 4 KiB: the page and sector size of today's machines, so that nothing finer changes alone.
    package static let defaultBlock = 4 << 10

    /// The smallest and the largest block that may be chosen; multiples of a disk's smallest
    /// sector, and small enough for two windows of each worker to fit in memory.
    package static let blockSizes = 512...(16 << 20)

    /// The fastest, or as fast as any, of 256 KiB to 2 MiB on two processors; see
    /// docs/decisions/0007-windows-and-huge-pages.md.
    private static let windowAim = 1 << 20
    private static let regionAim = 64 << 10

    /// Derives regions and windows from the block size.
    ///
    /// - Parameter block: bytes, a multiple of 512 within `blockSizes`.
    package init(block: Int = Self.defaultBlock) {
        precondition(Self.blockSizes.contains(block) && block % 512 == 0)
        var region = block
        while region < Self.regionAim { region *= 2 }
        self.block = block
        self.region = region
        window = max(1, Self.windowAim / region) * region
    }

    /// Bytes of a window that is compared by digests: long, so that the headers of its request are
    /// little beside its digests, and few of them hide a long round trip.
    package var remoteWindow: Int { max(1, Self.remoteWindowAim / window) * window }

    /// Bytes of such a window where most of it differs: what fits in a worker's memory, and so is
    /// read once.
    package var denseWindow: Int { min(2 * window, remoteWindow) }

    private static let remoteWindowAim = 16 << 20

    /// How many blocks a range touches that starts in a block's first byte.
    func blocks(in range: ByteRange) -> Int { (range.length + block - 1) / block }
}
