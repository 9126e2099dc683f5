// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import LinuxIO

extension RescueMap {
    /// Units of the finished areas, one at random in each of equal shares; ascending.
    ///
    /// - Parameters:
    ///   - count: of shares, at most.
    ///   - unit: bytes.
    func samples(_ count: Int, unit: Int) -> [ByteRange] {
        let whole = ranges(.finished).compactMap { range -> ByteRange? in
            let start = range.offset.roundedUp(to: unit)
            let end = range.end == size ? range.end : range.end / unit * unit
            return start < end ? ByteRange(start, to: end) : nil
        }
        let total = whole.reduce(0) { $0 + $1.length }
        guard total > 0 else { return [] }
        let share = max(unit, total / count)
        var wanted = stride(from: 0, to: total, by: share).map { start in
            Int.random(in: start..<min(start + share, total))
        }[...]
        var places: [ByteRange] = []
        var before = 0
        for range in whole {
            while let next = wanted.first, next < before + range.length {
                wanted.removeFirst()
                let start = (range.offset + next - before) / unit * unit
                places.append(ByteRange(start, to: min(start + unit, range.end)))
            }
            before += range.length
        }
        return places
    }
}
