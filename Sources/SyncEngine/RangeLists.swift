// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices

/// The lowest inserted ranges, ascending, with adjacent ones joined.
package struct LowestRanges: Sendable {
    package private(set) var ranges: [ByteRange] = []
    private let limit: Int

    /// - Parameter limit: maximum number of ranges; higher ones are dropped.
    init(limit: Int) { self.limit = limit }

    /// The range must not overlap any range of the list.
    mutating func insert(_ range: ByteRange) {
        var index = ranges.endIndex
        while index > 0 && ranges[index - 1].offset > range.offset { index -= 1 }
        if index > 0, ranges[index - 1].end == range.offset {
            index -= 1
            ranges[index].length += range.length
        } else if index < limit {
            ranges.insert(range, at: index)
        }
        if index + 1 < ranges.count, ranges[index].end == ranges[index + 1].offset {
            ranges[index].length += ranges[index + 1].length
            ranges.remove(at: index + 1)
        }
        if ranges.count > limit { ranges.removeLast() }
    }
}

extension [Extent] {
    /// Appends a range, or extends the last extent if the range continues it.
    mutating func append(joining range: ByteRange, _ kind: Extent.Kind) {
        if let last, last.kind == kind, last.range.end == range.offset {
            self[count - 1].range.length += range.length
        } else {
            append(Extent(range, kind))
        }
    }

    /// - Parameter ranges: ascending, not overlapping.
    func subtracting(_ ranges: [ByteRange]) -> [Extent] {
        var result: [Extent] = []
        for extent in self {
            var start = extent.range.offset
            for hole in ranges where hole.overlaps(extent.range) {
                if hole.offset > start {
                    result.append(Extent(ByteRange(start, to: hole.offset), extent.kind))
                }
                start = hole.end
            }
            if start < extent.range.end {
                result.append(Extent(ByteRange(start, to: extent.range.end), extent.kind))
            }
        }
        return result
    }
}

extension [ByteRange] {
    /// Extends ascending ranges to multiples of `unit` bytes, but not beyond `limit`, and joins
    /// them.
    package func rounded(to unit: Int, limit: Int) -> [ByteRange] {
        var result: [ByteRange] = []
        for range in self {
            let start = range.offset / unit * unit
            let end = Swift.min(limit, (range.end + unit - 1) / unit * unit)
            if let last = result.last, start <= last.end {
                result[result.count - 1] = ByteRange(last.offset, to: end)
            } else {
                result.append(ByteRange(start, to: end))
            }
        }
        return result
    }
}
