// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices

/// Where a device may differ from what a snapshot of it held.
///
/// A map may name too much, never too little: outside its ranges the two are equal.
package struct ChangeMap: Hashable, Sendable {
    /// Bytes of the device as it is now.
    package let size: Int
    /// Ascending, within the device; no two overlap or touch.
    package let ranges: [ByteRange]
    /// Bytes of all ranges.
    package let byteCount: Int

    /// Makes a map of what is known to have changed.
    ///
    /// - Parameters:
    ///   - changed: in any order, also overlapping, also beyond the device's end.
    ///   - chunk: bytes; the unit that changes are known in, which ranges are grown outwards to.
    ///   - size: bytes of the device as it is now.
    ///   - oldSize: bytes of the snapshot. What was added since is changed.
    package init(_ changed: [ByteRange], chunk: Int = 1, size: Int, oldSize: Int) {
        precondition(chunk > 0 && size >= 0 && oldSize >= 0)
        var pieces = changed.filter { !$0.isEmpty && $0.offset < size }
        if oldSize < size { pieces.append(ByteRange(oldSize, to: size)) }
        pieces.sort { $0.offset < $1.offset }
        var ranges: [ByteRange] = []
        for piece in pieces {
            let start = piece.offset / chunk * chunk
            // Rounded as a distance to the end: what is rounded up may be more than an Int can hold.
            let over = piece.end % chunk
            let end =
                piece.end >= size || (over > 0 && size - piece.end <= chunk - over)
                ? size : piece.end + (over > 0 ? chunk - over : 0)
            if let last = ranges.last, start <= last.end {
                ranges[ranges.count - 1] = ByteRange(last.offset, to: max(last.end, end))
            } else {
                ranges.append(ByteRange(start, to: end))
            }
        }
        self.size = size
        self.ranges = ranges
        byteCount = ranges.reduce(0) { $0 + $1.length }
    }

    /// The first bytes at or after an offset that may have changed, as many as are in one run.
    ///
    /// - Returns: a range that starts at the offset or behind it; `nil` where nothing follows.
    package func next(from offset: Int) -> ByteRange? {
        var low = ranges.startIndex
        var high = ranges.endIndex
        while low < high {
            let middle = (low + high) / 2
            if ranges[middle].end <= offset { low = middle + 1 } else { high = middle }
        }
        guard low < ranges.endIndex else { return nil }
        return ByteRange(max(offset, ranges[low].offset), to: ranges[low].end)
    }

    /// Whether a byte of the range may have changed.
    package func overlaps(_ range: ByteRange) -> Bool {
        next(from: range.offset)?.overlaps(range) ?? false
    }
}
