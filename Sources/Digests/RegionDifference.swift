// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

/// A region that differs, and the digests of its blocks on the other side.
package struct RegionDifference {
    /// The index of the region, across all ranges of the window.
    package var index: Int
    /// One bit for each block, the lowest of the first byte first; 1 for a zero block.
    package var zeroMarks: UnsafeRawBufferPointer
    /// One digest for each block; all zeros for a zero block.
    package var digests: UnsafeRawBufferPointer

    package init(
        index: Int, zeroMarks: UnsafeRawBufferPointer, digests: UnsafeRawBufferPointer
    ) {
        self.index = index
        self.zeroMarks = zeroMarks
        self.digests = digests
    }

    package func isZero(block: Int) -> Bool { zeroMarks[block / 8] >> (block % 8) & 1 == 1 }
}
