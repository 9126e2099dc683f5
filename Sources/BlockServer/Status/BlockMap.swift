// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices

/// What a session has done where on its device, in at most 1024 cells.
struct BlockMap: Sendable {
    enum Mark: UInt8 {
        case compared = 1
        /// In a region whose digests differ.
        case changed = 2
        /// Written, or zeroed, or sent to the client.
        case transferred = 4
    }

    /// The marks of each cell.
    private(set) var cells: [UInt8]
    /// The end of the part that has a mark; bytes.
    private(set) var position = 0
    /// Bytes.
    private let cell: Int

    /// The server holds the session's lock while it marks a request's ranges.
    private static let limit = 1024
    private static let smallestCell = 4096

    /// - Parameter size: of the device, in bytes.
    init(size: Int) {
        cell = max(Self.smallestCell, size / Self.limit + (size % Self.limit == 0 ? 0 : 1))
        cells = [UInt8](repeating: 0, count: size / cell + (size % cell == 0 ? 0 : 1))
    }

    /// Marks ranges; leaves out what is behind the size that the device had at first.
    mutating func mark(_ ranges: some Sequence<ByteRange>, _ mark: Mark) {
        for range in ranges where !range.isEmpty {
            position = max(position, range.end)
            let last = min((range.end - 1) / cell, cells.count - 1)
            var index = range.offset / cell
            while index <= last {
                cells[index] |= mark.rawValue
                index += 1
            }
        }
    }

    mutating func mark(_ range: ByteRange, _ mark: Mark) {
        self.mark(CollectionOfOne(range), mark)
    }

    /// One digit for each cell, the sum of its marks.
    var digits: String {
        String(decoding: cells.map { UInt8(ascii: "0") + $0 }, as: UTF8.self)
    }
}
