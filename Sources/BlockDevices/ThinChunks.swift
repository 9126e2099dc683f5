// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

/// How a thin volume is stored: in chunks of its pool, each of which is there or reads as zeros.
package struct ThinChunks: Hashable, Sendable {
    /// Bytes of a chunk.
    package var size: Int
    /// Whether the pool zeroes a chunk that becomes part of a volume.
    ///
    /// Where it does not, what the first write leaves of a chunk holds what some volume had there
    /// before.
    package var areZeroed: Bool

    package init(size: Int, areZeroed: Bool) {
        self.size = size
        self.areZeroed = areZeroed
    }

    /// The whole chunks of a range.
    func whole(of range: ByteRange) -> ByteRange {
        let start = (range.offset + size - 1) / size * size
        return ByteRange(start, to: max(start, range.end / size * size))
    }

    /// The range with all of the chunks that it touches, as far as the device goes.
    func widened(_ range: ByteRange, in deviceSize: Int) -> ByteRange {
        ByteRange(
            range.offset / size * size,
            to: min((range.end + size - 1) / size * size, deviceSize))
    }
}
