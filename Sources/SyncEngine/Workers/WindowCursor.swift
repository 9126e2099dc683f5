// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import LinuxIO

/// A range to process, and its known holes.
struct Window: Hashable {
    var range: ByteRange
    var sourceIsHole: Bool
    var targetIsHole: Bool

    var hasData: Bool { !sourceIsHole && !targetIsHole }
}

/// Returns the windows in ascending order, without holes on both sides and ranges known to be
/// equal.
///
/// Threads that share it need a lock.
struct WindowCursor {
    private var position = 0
    private let end: Int
    private let windowSize: Int
    /// Maximum bytes of a window in a hole of the source, where nothing is read.
    private let holeSize: Int
    private var source: DataRuns
    private var target: DataRuns
    /// The ranges that may differ, ascending; `nil` for everything.
    private let changes: [ByteRange]?
    private var nextChange = 0
    /// Ranges before `position` that are holes on both sides, since the last `takeSkipped`.
    private var skippedRanges: [ByteRange] = []

    /// - Parameters:
    ///   - length: bytes of both devices.
    ///   - windowSize: bytes of every window but the last.
    ///   - holeSize: bytes of a window in a hole of the source, at least `windowSize`.
    ///   - changes: ascending, disjoint, in whole regions; `nil` for everything.
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

    /// - Parameter length: bytes of the window, if it differs from `windowSize`.
    /// - Returns: the window, or none at the end; the bytes before it that are holes on both sides,
    ///   and those known to be equal.
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

    /// Returns the windows for one request: one, or several short ones of a change map.
    ///
    /// Several have data on both sides, and together at most the length of one.
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

    /// A window of data that the source has already loaded; windows ascend.
    mutating func window(of range: ByteRange) throws(IOError) -> Window {
        let run = try target.run(at: range.offset)
        return Window(
            range: range, sourceIsHole: false, targetIsHole: !(run?.overlaps(range) ?? false))
    }

    /// Returns the holes on both sides that were passed since the last call.
    mutating func takeSkipped() -> [ByteRange] {
        guard !skippedRanges.isEmpty else { return [] }
        defer { skippedRanges.removeAll(keepingCapacity: true) }
        return skippedRanges
    }

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
            skippedRanges.append(ByteRange(start, to: end))
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
        if range.offset > start { skippedRanges.append(ByteRange(start, to: range.offset)) }
        return (
            Window(range: range, sourceIsHole: sourceIsHole, targetIsHole: targetIsHole),
            range.offset - start
        )
    }
}

/// Queries each data run of a device once.
private struct DataRuns {
    private let device: any BlockDevice
    private var current: ByteRange?
    private var isExhausted = false

    init(_ device: any BlockDevice) { self.device = device }

    /// The first run that ends after an offset; `nil` if there is none.
    mutating func run(at offset: Int) throws(IOError) -> ByteRange? {
        if isExhausted { return nil }
        if let current, offset < current.end { return current }
        current = try device.nextData(from: offset)
        isExhausted = current == nil
        return current
    }
}
