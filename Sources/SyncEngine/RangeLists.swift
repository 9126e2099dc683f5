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

/// The ranges that a pass has finished: compared, and written without an error.
package struct DoneRanges: Sendable {
    /// Ascending, with adjacent ones joined.
    package private(set) var ranges: [ByteRange] = []

    /// More than a sparse image of some TiB has; what does not fit counts as not done.
    package static let limit = 1 << 16

    package init() {}

    /// Adds a range that overlaps none of the others.
    mutating func insert(_ range: ByteRange) {
        guard !range.isEmpty else { return }
        // Windows finish roughly in ascending order.
        var index = ranges.endIndex
        while index > 0 && ranges[index - 1].offset > range.offset { index -= 1 }
        let joinsNext = index < ranges.count && range.end == ranges[index].offset
        if index > 0, ranges[index - 1].end == range.offset {
            ranges[index - 1].length += range.length
            if joinsNext { ranges[index - 1].length += ranges.remove(at: index).length }
        } else if joinsNext {
            ranges[index] = ByteRange(range.offset, to: ranges[index].end)
        } else if ranges.count < Self.limit {
            ranges.insert(range, at: index)
        }
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
    /// The bytes of all ranges.
    package var byteCount: Int { reduce(0) { $0 + $1.length } }

    /// What ascending, disjoint ranges leave of the first `size` bytes.
    package func complement(size: Int) -> [ByteRange] {
        var result: [ByteRange] = []
        var position = 0
        for range in self where position < size {
            if range.offset > position {
                result.append(ByteRange(position, to: Swift.min(range.offset, size)))
            }
            position = Swift.max(position, range.end)
        }
        if position < size { result.append(ByteRange(position, to: size)) }
        return result
    }

    /// The union of two ascending lists, with adjacent ranges joined.
    package func union(_ other: [ByteRange]) -> [ByteRange] {
        var result: [ByteRange] = []
        for range in (self + other).sorted(by: { $0.offset < $1.offset }) {
            if let last = result.last, range.offset <= last.end {
                let end = Swift.max(last.end, range.end)
                result[result.count - 1] = ByteRange(last.offset, to: end)
            } else {
                result.append(range)
            }
        }
        return result
    }

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
