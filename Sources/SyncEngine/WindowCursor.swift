// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import LinuxIO

/// One piece of work: a range and what is known of it without reading.
struct Window: Hashable {
    var range: ByteRange
    /// The source has only zeros here.
    var sourceIsHole: Bool
    /// The target has only zeros here.
    var targetIsHole: Bool

    /// Both sides have to be read.
    var hasData: Bool { !sourceIsHole && !targetIsHole }
}

/// Hands out the windows of a device in ascending order, and leaves out those where neither side
/// has data, and what is known to be equal.
///
/// A pure bookkeeper: whoever shares it between threads guards it.
struct WindowCursor {
    private var position = 0
    private let end: Int
    private let windowSize: Int
    /// How far a window may reach where the source is a hole and nothing has to be read, in bytes.
    private let holeSize: Int
    private var source: DataRuns
    private var target: DataRuns
    /// The ranges that may differ, ascending; `nil` where all may.
    private let changes: [ByteRange]?
    /// The first of them that ends behind the position.
    private var nextChange = 0

    /// Starts at the beginning.
    ///
    /// - Parameters:
    ///   - source: what is read.
    ///   - target: what is made equal, or compared.
    ///   - length: how many bytes of the two.
    ///   - windowSize: bytes of a window; all but the last have it.
    ///   - holeSize: bytes of a window in a hole of the source, at least `windowSize`.
    ///   - changes: where the two may differ: ascending, apart from each other, in whole regions;
    ///     `nil` for everywhere.
    init(
        source: any BlockDevice, target: any BlockDevice, length: Int, windowSize: Int,
        holeSize: Int, changes: [ByteRange]? = nil
    ) {
        self.source = DataRuns(source)
        self.target = DataRuns(target)
        end = length
        self.windowSize = windowSize
        self.holeSize = holeSize / windowSize * windowSize
        self.changes = changes
    }

    /// Takes the next window.
    ///
    /// - Parameter length: bytes of it, where it is not to be as long as others.
    /// - Returns: the window, how many bytes before it have no data, and how many are known to be
    ///   equal; no window at the end.
    /// - Throws: what asking for the next data throws.
    mutating func next(
        length: Int? = nil
    ) throws(IOError) -> (window: Window?, skipped: Int, unchanged: Int) {
        var unchanged = 0
        var skipped = 0
        while true {
            var limit = end
            if let changes {
                while nextChange < changes.count, changes[nextChange].end <= position {
                    nextChange += 1
                }
                let change =
                    nextChange < changes.count ? changes[nextChange] : ByteRange(end, to: end)
                let start = min(max(position, change.offset), end)
                unchanged += start - position
                position = start
                limit = min(change.end, end)
            }
            let (window, empty) = try next(length ?? windowSize, before: limit)
            skipped += empty
            if window != nil || position >= end { return (window, skipped, unchanged) }
        }
    }

    /// Takes the next windows that may be compared together: one, or where a change map names short
    /// ranges, as many with data on both sides as are no longer than one window.
    ///
    /// - Parameter length: bytes of a window, where it is not to be as long as others.
    /// - Returns: as `next(length:)`; no windows at the end.
    /// - Throws: what asking for the next data throws.
    mutating func nextGroup(
        length: Int? = nil
    ) throws(IOError) -> (windows: [Window], skipped: Int, unchanged: Int) {
        var room = length ?? windowSize
        var (window, skipped, unchanged) = try next(length: room)
        var windows: [Window] = []
        while let found = window {
            windows.append(found)
            room -= found.range.length
            guard changes != nil, room > 0, found.hasData else { break }
            var ahead = self
            let more = try ahead.next(length: room)
            guard let next = more.window, next.hasData else { break }
            self = ahead
            skipped += more.skipped
            unchanged += more.unchanged
            window = next
        }
        return (windows, skipped, unchanged)
    }

    /// Takes the next window of what ends somewhere.
    private mutating func next(
        _ windowSize: Int, before end: Int
    ) throws(IOError) -> (window: Window?, skipped: Int) {
        let start = position
        guard position < end else { return (nil, 0) }
        let sourceRun = try source.run(at: position)
        let targetRun = try target.run(at: position)
        let first = min(sourceRun?.offset ?? end, targetRun?.offset ?? end)
        if first >= end {
            position = end
            return (nil, end - start)
        }
        position = max(position, first / windowSize * windowSize)
        var range = ByteRange(offset: position, length: min(windowSize, end - position))
        let sourceIsHole = !(sourceRun?.overlaps(range) ?? false)
        if sourceIsHole {
            let holeEnd = min(sourceRun?.offset ?? end, targetRun?.end ?? end, end)
            let long = min(
                position + min(holeSize, end - position), holeEnd / windowSize * windowSize)
            if long > range.end { range = ByteRange(position, to: long) }
        }
        let targetIsHole = !(targetRun?.overlaps(range) ?? false)
        position = range.end
        return (
            Window(range: range, sourceIsHole: sourceIsHole, targetIsHole: targetIsHole),
            range.offset - start
        )
    }
}

/// The data runs of one device, asked for once each.
private struct DataRuns {
    private let device: any BlockDevice
    private var current: ByteRange?
    private var isExhausted = false

    init(_ device: any BlockDevice) { self.device = device }

    /// The first run that ends after an offset; `nil` when there is none.
    mutating func run(at offset: Int) throws(IOError) -> ByteRange? {
        if isExhausted { return nil }
        if let current, offset < current.end { return current }
        current = try device.nextData(from: offset)
        isExhausted = current == nil
        return current
    }
}
