// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices
package import Digests

extension BlockLayout {
    /// Throws unless the ranges ascend, consist of whole regions except for the end, and fit in a
    /// window.
    package func check(_ ranges: [ByteRange], size: Int) throws(WireError) {
        var (end, length, count) = (0, 0, 0)
        for range in ranges {
            guard !range.isEmpty, range.end <= size else {
                throw WireError("\(range): not within the \(size) bytes that are compared")
            }
            guard range.offset >= end, end % region == 0 else {
                throw WireError("\(range): out of order, or behind a region that is cut off")
            }
            guard range.offset % region == 0 else {
                throw WireError("\(range): does not start at a region of \(region) bytes")
            }
            guard range.length <= Limits.window - length,
                blocks(in: range) <= Limits.blocks - count
            else { throw WireError("\(range): longer than a window may be") }
            (end, length, count) = (range.end, length + range.length, count + blocks(in: range))
        }
        guard !ranges.isEmpty else { throw WireError("compare: no range") }
    }
}

/// The request to compare a window, or for a map of the device's data.
///
///     0   u32  kind: 1 compare, 2 map
///     4   u32  kind 1: number of ranges in the window; kind 2: 0
///     8        for each range, or once for kind 2: u64 offset, u64 length, bytes
///              kind 1: one digest for each region, ascending
package enum CompareRequest {
    case compare([ByteRange], digests: UnsafeRawBufferPointer)
    case map(ByteRange)

    /// Bytes before the digests.
    package static func headerSize(ranges: Int = 1) -> Int { 8 + 16 * ranges }

    /// - Parameters:
    ///   - window: ascending ranges.
    ///   - memory: at least `headerSize` bytes.
    package static func writeHeader(
        _ window: [ByteRange], to memory: UnsafeMutableRawBufferPointer
    ) {
        write(kind: 1, count: window.count, window, to: memory)
    }

    /// - Parameter memory: at least `headerSize` bytes.
    package static func writeMap(of range: ByteRange, to memory: UnsafeMutableRawBufferPointer) {
        write(kind: 2, count: 0, [range], to: memory)
    }

    private static func write(
        kind: UInt32, count: Int, _ ranges: [ByteRange], to memory: UnsafeMutableRawBufferPointer
    ) {
        var writer = FrameWriter(memory)
        writer.put(kind)
        writer.put(UInt32(count))
        for range in ranges {
            writer.put(UInt64(range.offset))
            writer.put(UInt64(range.length))
        }
    }

    /// Parses a whole body, and throws if it is malformed or exceeds the device.
    ///
    /// - Parameters:
    ///   - digestSize: bytes of a digest.
    ///   - size: compared bytes of the device.
    package init(
        _ bytes: UnsafeRawBufferPointer, layout: BlockLayout, digestSize: Int, size: Int
    ) throws(WireError) {
        var reader = FrameReader(bytes)
        let kind = try reader.u32()
        let count = try reader.u32()
        switch kind {
        case 1:
            // More would exceed a window, so no memory is allocated for them.
            guard count <= Limits.blocks else { throw WireError("compare: \(count) ranges") }
            var window: [ByteRange] = []
            for _ in 0..<count { window.append(try reader.range()) }
            try layout.check(window, size: size)
            let digests = try reader.take(layout.regions(of: window).count * digestSize)
            try reader.end()
            self = .compare(window, digests: digests)
        case 2:
            guard count == 0 else { throw WireError("a reserved field is not 0") }
            let range = try reader.range()
            guard !range.isEmpty, range.end <= size else {
                throw WireError("\(range): not within the \(size) bytes of the device")
            }
            try reader.end()
            self = .map(range)
        default: throw WireError("compare: kind \(kind) is unknown")
        }
    }
}

extension FrameReader {
    mutating func range() throws(WireError) -> ByteRange {
        let offset = try size()
        let length = try size()
        guard !offset.addingReportingOverflow(length).overflow else {
            throw WireError("offset \(offset), length \(length): beyond every device")
        }
        return ByteRange(offset: offset, length: length)
    }
}

/// The answer to a compare request: the regions that differ, ascending.
///
///     0   u32  count
///         count times
///             u32  index of the region in the window
///                  zero marks: one bit for each block, ⌈blocks / 8⌉ bytes, unused bits 0
///                  one digest for each block
package enum CompareAnswer {
    package static let headerSize = 4

    package static func entrySize(blocks: Int, digestSize: Int) -> Int {
        4 + (blocks + 7) / 8 + blocks * digestSize
    }

    package static func writeHeader(count: Int, to memory: UnsafeMutableRawBufferPointer) {
        var writer = FrameWriter(memory)
        writer.put(UInt32(count))
    }

    /// - Parameters:
    ///   - index: of the region in the window.
    ///   - memory: `entrySize` bytes.
    package static func writeEntry(
        index: Int, zeroBlocks: UnsafeBufferPointer<Bool>, digests: UnsafeRawBufferPointer,
        to memory: UnsafeMutableRawBufferPointer
    ) {
        var writer = FrameWriter(memory)
        writer.put(UInt32(index))
        var byte: UInt8 = 0
        for (block, isZero) in zeroBlocks.enumerated() {
            if isZero { byte |= 1 << (block % 8) }
            if block % 8 == 7 || block == zeroBlocks.count - 1 {
                writer.put(byte)
                byte = 0
            }
        }
        writer.put(digests)
    }

    /// Parses a whole body, and throws if it does not fit the request.
    ///
    /// The result ascends, and points into `bytes`.
    ///
    /// - Parameters:
    ///   - regions: of the requested window.
    ///   - digestSize: bytes of a digest.
    package static func read(
        _ bytes: UnsafeRawBufferPointer, regions: [ByteRange], layout: BlockLayout, digestSize: Int
    ) throws(WireError) -> [RegionDifference] {
        var reader = FrameReader(bytes)
        let count = try reader.u32()
        guard count <= regions.count else {
            throw WireError("\(count) of \(regions.count) regions are said to differ")
        }
        var differences: [RegionDifference] = []
        differences.reserveCapacity(count)
        for _ in 0..<count {
            let index = try reader.u32()
            guard regions.indices.contains(index), (differences.last?.index ?? -1) < index else {
                throw WireError("region \(index) of \(regions.count): out of order")
            }
            let blocks = layout.blocks(in: regions[index])
            let marks = try reader.take((blocks + 7) / 8)
            if blocks % 8 != 0, let last = marks.last, last >> (blocks % 8) != 0 {
                throw WireError("region \(index): a mark beyond its \(blocks) blocks")
            }
            let digests = try reader.take(blocks * digestSize)
            let difference = RegionDifference(index: index, zeroMarks: marks, digests: digests)
            guard marksFit(difference, blocks: blocks, digestSize: digestSize) else {
                throw WireError("region \(index): a zero block has a digest other than zeros")
            }
            differences.append(difference)
        }
        try reader.end()
        return differences
    }

    /// Returns whether every zero block has a digest of zeros.
    private static func marksFit(
        _ difference: RegionDifference, blocks: Int, digestSize: Int
    ) -> Bool {
        (0..<blocks).allSatisfy { block in
            let digest = difference.digests[block * digestSize..<(block + 1) * digestSize]
            return !difference.isZero(block: block)
                || isZero(UnsafeRawBufferPointer(rebasing: digest))
        }
    }
}

/// The answer to a map request: runs that may contain other bytes than zeros, ascending.
///
///     0   u64  end of the range that the answer covers, bytes
///     8   u32  count
///     12  u32  0
///     16       count times u64 offset, u64 length, bytes
package struct DataMap: Hashable, Sendable {
    package var end: Int
    package var runs: [ByteRange]

    package init(end: Int, runs: [ByteRange]) {
        self.end = end
        self.runs = runs
    }

    package var encoded: [UInt8] {
        [UInt8](unsafeUninitializedCapacity: 16 + 16 * runs.count) { memory, count in
            var writer = FrameWriter(UnsafeMutableRawBufferPointer(memory))
            writer.put(UInt64(end))
            writer.put(UInt32(runs.count))
            writer.put(UInt32(0))
            for run in runs {
                writer.put(UInt64(run.offset))
                writer.put(UInt64(run.length))
            }
            count = writer.count
        }
    }

    package init(_ bytes: UnsafeRawBufferPointer, range: ByteRange) throws(WireError) {
        var reader = FrameReader(bytes)
        end = try reader.size()
        guard end > range.offset, end <= range.end else {
            throw WireError("a map of \(range) ends at \(end)")
        }
        let count = try reader.u32()
        guard try reader.u32() == 0 else { throw WireError("a reserved field is not 0") }
        guard count <= Limits.runs else { throw WireError("a map has \(count) runs") }
        // Without this check the map could advance by a byte at a time.
        guard end == range.end || count == Limits.runs else {
            throw WireError("a map of \(range) ends at \(end), after \(count) runs")
        }
        runs = []
        var position = range.offset
        for _ in 0..<count {
            let run = try reader.range()
            guard run.offset >= position, run.end <= end, !run.isEmpty else {
                throw WireError("a map's run at \(run): out of order")
            }
            position = run.end
            runs.append(run)
        }
        try reader.end()
    }
}
