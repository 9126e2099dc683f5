// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices

/// The lowest ranges of those that were inserted, in any order: ascending, adjacent ones joined.
package struct LowestRanges: Sendable {
    package private(set) var ranges: [ByteRange] = []
    private let limit: Int

    /// Makes an empty list.
    ///
    /// - Parameter limit: how many ranges are kept; higher ones are forgotten.
    init(limit: Int) { self.limit = limit }

    /// Adds a range that overlaps none of the list.
    mutating func insert(_ range: ByteRange) {
        var index = ranges.endIndex
        while index > 0 && ranges[index - 1].offset > range.offset { index -= 1 }
        if index == limit { return }
        if index > 0, ranges[index - 1].end == range.offset {
            index -= 1
            ranges[index].length += range.length
        } else {
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
    /// Appends a range behind all others, as a part of the last extent where it goes on with it.
    mutating func append(joining range: ByteRange, _ kind: Extent.Kind) {
        if let last, last.kind == kind, last.range.end == range.offset {
            self[count - 1].range.length += range.length
        } else {
            append(Extent(range, kind))
        }
    }

    /// The extents without the bytes of some ranges.
    ///
    /// - Parameter ranges: ascending, not overlapping.
    /// - Returns: what is left, ascending.
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
    /// The ranges, which ascend, grown outwards to multiples of a unit, within a limit, and joined.
    ///
    /// - Parameters:
    ///   - unit: bytes.
    ///   - limit: bytes; where the last one is cut.
    /// - Returns: the ranges, apart from each other.
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
