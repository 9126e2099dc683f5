// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices

extension DigestWorker {
    enum End {
        case done
        case stopped
        /// The server sent other bytes than it had compared.
        case changed
    }

    struct LocalPart {
        /// Ascending; whole regions, except for the end of the last.
        let ranges: [ByteRange]
        let regions: [ByteRange]
        /// Bytes.
        let length: Int
        /// Whether the local bytes stay in memory, without gaps.
        let isKept: Bool

        init(_ ranges: [ByteRange], regions: [ByteRange], room: Int) {
            self.ranges = ranges
            self.regions = regions
            length = ranges.reduce(0) { $0 + $1.length }
            isKept = length <= room
        }
    }

    struct Batch {
        var extents: [Extent] = []
        /// Ranges in memory, without gaps.
        var places: [ByteRange] = []
    }

    struct WindowResult {
        var length: Int
        var extents: [Extent] = []
        var different = 0

        init(length: Int) { self.length = length }

        mutating func add(_ more: [Extent]) {
            extents += more
            different += more.reduce(0) { $0 + $1.range.length }
        }
    }
}
