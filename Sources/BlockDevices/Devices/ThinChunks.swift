// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

/// The chunks of a thin volume, which are allocated from its pool or read as zeros.
package struct ThinChunks: Hashable, Sendable {
    /// Bytes.
    package var size: Int
    /// Whether the pool zeroes a new chunk; if not, the first write leaves old data of any volume
    /// in it.
    package var areZeroed: Bool

    package init(size: Int, areZeroed: Bool) {
        self.size = size
        self.areZeroed = areZeroed
    }

    func whole(of range: ByteRange) -> ByteRange {
        let start = (range.offset + size - 1) / size * size
        return ByteRange(start, to: max(start, range.end / size * size))
    }

    /// The range extended to whole chunks, but not beyond the device.
    func widened(_ range: ByteRange, in deviceSize: Int) -> ByteRange {
        ByteRange(
            range.offset / size * size,
            to: min((range.end + size - 1) / size * size, deviceSize))
    }
}
