// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices
internal import LinuxIO

/// Where a device may differ from the content of a snapshot of it, or from zeros.
///
/// A map may name too much, but never too little. Outside its ranges the two are equal.
package struct ChangeMap: Hashable, Sendable {
    /// Bytes of the device as it is now.
    package let size: Int
    /// Ascending and within the device; no two ranges overlap or touch.
    package let ranges: [ByteRange]
    package let byteCount: Int

    /// Makes a map from the known changes.
    ///
    /// - Parameters:
    ///   - changed: in any order. Ranges may overlap or lie beyond the device's end.
    ///   - chunk: bytes of the unit of change tracking. Ranges grow outwards to multiples of it.
    ///   - oldSize: bytes of the snapshot, or of zeros. Everything beyond them counts as changed.
    package init(_ changed: [ByteRange], chunk: Int = 1, size: Int, oldSize: Int) {
        precondition(chunk > 0 && size >= 0 && oldSize >= 0)
        var pieces = changed.filter { !$0.isEmpty && $0.offset < size }
        if oldSize < size { pieces.append(ByteRange(oldSize, to: size)) }
        pieces.sort { $0.offset < $1.offset }
        var ranges: [ByteRange] = []
        for piece in pieces {
            let start = piece.offset / chunk * chunk
            // The distance to the end is compared, because the rounded end may overflow an Int.
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

    /// Returns the first run of bytes at or after an offset that may have changed; `nil` if none
    /// follows.
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

    package func overlaps(_ range: ByteRange) -> Bool {
        next(from: range.offset)?.overlaps(range) ?? false
    }
}

extension IOError {
    /// No trustworthy change map can be made; the caller falls back to a full comparison.
    static func noChangeMap(
        _ object: String, _ reason: String, advice: String? = nil
    ) -> IOError {
        IOError(object, "no change map", reason: reason, advice: advice)
    }

    static func cancelled(_ object: String) -> IOError {
        var error = noChangeMap(object, "interrupted")
        error.kind = .cancelled
        return error
    }
}
