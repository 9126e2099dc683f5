// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices

/// What has been read of a failing source, as in a mapfile of GNU ddrescue.
///
/// Source of names and values: "Mapfile structure" in the manual of GNU ddrescue.
package struct RescueMap: Hashable, Sendable {
    /// In the order in which a range passes through them.
    package enum Status: UInt8, CaseIterable, Comparable, Sendable {
        case untried = 0x3F  // ?
        /// Read in one piece, which failed.
        case untrimmed = 0x2A  // *
        /// Between two bad sectors of such a piece.
        case unscraped = 0x2F  // /
        /// Sectors that failed, each read alone.
        case bad = 0x2D  // -
        case finished = 0x2B  // +

        private var rank: Int { Self.allCases.firstIndex(of: self) ?? 0 }

        package static func < (one: Status, other: Status) -> Bool { one.rank < other.rank }
    }

    package struct Area: Hashable, Sendable {
        package var range: ByteRange
        package var status: Status

        package init(_ range: ByteRange, _ status: Status) {
            self.range = range
            self.status = status
        }
    }

    /// What a run does, or did when it ended.
    package enum Phase: UInt8, CaseIterable, Sendable {
        case copying = 0x3F  // ?
        case trimming = 0x2A  // *
        case scraping = 0x2F  // /
        case retrying = 0x2D  // -
        /// ddrescue writes something over areas of a status.
        case filling = 0x46  // F
        /// ddrescue makes a map from a copy.
        case generating = 0x47  // G
        case finished = 0x2B  // +
    }

    /// From 0 to the end of the device without gaps; neighbours differ in their status.
    package private(set) var areas: [Area]
    /// The byte being tried: the start of the range in a forward pass, its end in a backward one.
    package var position = 0
    package var phase = Phase.copying
    /// The number of the pass in the phase, from 1.
    package var pass = 1
    /// Comments without their `#`, one line each.
    package var notes: [String] = []

    /// - Parameter size: of the device in bytes.
    package init(size: Int) {
        precondition(size >= 0)
        areas = size == 0 ? [] : [Area(ByteRange(0, to: size), .untried)]
    }

    /// - Parameter areas: without gaps from any offset, in the order of offsets.
    init(areas: [Area]) {
        self.areas = []
        if let first = areas.first, first.range.offset > 0 {
            self.areas.append(Area(ByteRange(0, to: first.range.offset), .untried))
        }
        for area in areas { self.areas.append(joining: area) }
    }

    /// Bytes.
    package var size: Int { areas.last?.range.end ?? 0 }

    /// Adds untried bytes at the end.
    ///
    /// - Parameter size: at least the map's own.
    package mutating func extend(to size: Int) {
        precondition(size >= self.size)
        if size == self.size { return }
        areas.append(joining: Area(ByteRange(self.size, to: size), .untried))
    }

    package func bytes(_ status: Status) -> Int {
        areas.reduce(0) { $0 + ($1.status == status ? $1.range.length : 0) }
    }

    package func ranges(_ status: Status) -> [ByteRange] {
        areas.filter { $0.status == status }.map(\.range)
    }

    /// Everything that is not finished, ascending; neighbours are joined.
    package var unfinished: [ByteRange] {
        areas.filter { $0.status != .finished }.map(\.range).rounded(to: 1, limit: size)
    }

    /// The status of a byte; `nil` outside of the device.
    package func status(at offset: Int) -> Status? {
        guard offset >= 0 && offset < size else { return nil }
        return areas[index(of: offset)].status
    }

    /// Gives a range a status, except where it already has a later one.
    package mutating func raise(_ range: ByteRange, to status: Status) {
        change(range) { max($0, status) }
    }

    /// Gives a range a status.
    package mutating func set(_ range: ByteRange, to status: Status) {
        change(range) { _ in status }
    }

    /// Gives a range a status, except where it is finished.
    package mutating func reset(_ range: ByteRange, to status: Status) {
        change(range) { $0 == .finished ? $0 : status }
    }

    private mutating func change(_ range: ByteRange, _ new: (Status) -> Status) {
        precondition(range.end <= size)
        if range.isEmpty { return }
        // With one neighbour on each side, so that equal ones are joined.
        let first = max(0, index(of: range.offset) - 1)
        let last = min(areas.count - 1, index(of: range.end - 1) + 1)
        var changed: [Area] = []
        for area in areas[first...last] {
            guard let common = area.range.intersection(range) else {
                changed.append(joining: area)
                continue
            }
            let rest = area.range.without(common)
            for part in rest where part.offset < common.offset {
                changed.append(joining: Area(part, area.status))
            }
            changed.append(joining: Area(common, new(area.status)))
            for part in rest where part.offset > common.offset {
                changed.append(joining: Area(part, area.status))
            }
        }
        areas.replaceSubrange(first...last, with: changed)
    }

    /// The index of the area that has a byte, by binary search.
    private func index(of offset: Int) -> Int {
        var (low, high) = (0, areas.count - 1)
        while low < high {
            let middle = (low + high + 1) / 2
            if areas[middle].range.offset <= offset { low = middle } else { high = middle - 1 }
        }
        return low
    }
}

extension [RescueMap.Area] {
    fileprivate mutating func append(joining area: RescueMap.Area) {
        if let last, last.status == area.status {
            self[count - 1].range.length += area.range.length
        } else {
            append(area)
        }
    }
}
