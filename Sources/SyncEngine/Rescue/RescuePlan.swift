// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices

/// Decides what a rescue reads next: good areas first, in large pieces, the worst sectors last.
///
/// It does no I/O. The order is that of GNU ddrescue ("Algorithm" in its manual): copying, trimming,
/// scraping, retrying; and at the very end the ranges that did not answer in time. Each run works
/// from the other end than the one before, and retries each bad sector of earlier runs once.
package struct RescuePlan {
    package enum Outcome: Hashable, Sendable {
        case read
        case failed
        /// The device did not answer in time.
        case late
    }

    private enum Step: Hashable {
        /// ddrescue's passes: 1 reads large pieces and skips after an error, 2 comes from the other
        /// end and leaves the rest of a range after an error, 5 reads everything.
        case copy(pass: Int)
        case trim
        case scrape
        /// Sectors that were bad before this run.
        case retry
        case late
    }

    private enum End {
        case start
        case end

        var other: End { self == .start ? .end : .start }
    }

    /// What has been read, also where it is not written yet.
    package private(set) var map: RescueMap
    /// Bytes; the smallest piece.
    private let unit: Int
    private let window: Int
    private let isReversed: Bool
    private var steps: [Step]
    private var step = Step.trim
    /// Ranges of this step in whole units, in the order of work, the next one last.
    private var open: [ByteRange] = []
    /// Where the next range is worked on.
    private var end = End.start
    /// Whether the first edge of the area in work is trimmed.
    private var isTrimmed = false
    /// The piece that `next` has returned.
    private var current: ByteRange?
    /// Bytes to leave out after the next error.
    private var skip: Int
    private var late: [ByteRange] = []
    private let badBefore: [ByteRange]

    /// Bytes of a piece, from the second pass on.
    private static let smallPiece = 64 << 10
    private static let longestSkip = 1 << 30

    /// - Parameters:
    ///   - unit: bytes of the smallest piece, which both devices can transfer.
    ///   - window: bytes of the largest piece.
    ///   - isReversed: whether to begin at the end; the caller changes it from run to run.
    package init(_ map: RescueMap, unit: Int, window: Int, isReversed: Bool) {
        self.map = map
        self.unit = unit
        self.window = window.roundedUp(to: unit)
        self.isReversed = isReversed
        skip = self.window
        badBefore = map.ranges(.bad)
        // A run that was interrupted while it copied goes on there, and then tries the rest.
        let isResumed = map.phase == .copying && map.position > 0
        let resumed = map.pass < 3 ? map.pass : 5
        let passes = isResumed ? [resumed, 2, 5] : isReversed ? [2, 5] : [1, 2, 5]
        // The late ones may fail.
        steps = passes.map { .copy(pass: $0) } + [.trim, .scrape, .retry, .late, .trim, .scrape]
        if isResumed { begin(at: map.position) }
    }

    /// The next range to read, in whole units except at the end of the device; `nil` at the end.
    ///
    /// The caller calls `note` before it asks again.
    package mutating func next() -> ByteRange? {
        while true {
            if step == .trim { leaveTrimmedEdges() }
            if let range = open.last {
                let piece = piece(of: range)
                current = piece
                map.position = end == .start ? piece.offset : piece.end
                return piece
            }
            guard !steps.isEmpty else {
                (map.phase, map.pass) = (.finished, 1)
                return nil
            }
            begin(at: nil)
        }
    }

    /// Takes the outcome of the range that `next` has returned.
    package mutating func note(_ outcome: Outcome) {
        guard let piece = current else { preconditionFailure("nothing was to be read") }
        current = nil
        switch outcome {
        case .read: map.set(piece, to: .finished)
        case .failed: map.raise(piece, to: piece.length <= unit ? .bad : .untrimmed)
        case .late:
            late.append(piece)
            // An edge that is late counts as trimmed.
            if step == .trim { map.raise(piece, to: .unscraped) }
        }
        let isSameRange = leave(piece.length)
        guard case .copy(let pass) = step else { return }
        switch (outcome, pass) {
        case (.read, _): skip = window
        case (_, 1):
            if isSameRange { leave(skip) }
            skip = min(2 * skip, Self.longestSkip, max(window, map.size / 100 / unit * unit))
        case (_, 2): if isSameRange { leave(.max) }
        default: break
        }
    }

    /// Takes bytes off the range in work, and returns whether some are left.
    @discardableResult private mutating func leave(_ length: Int) -> Bool {
        guard let range = open.popLast() else { return false }
        guard length < range.length else {
            if step == .trim, isTrimmed { turn() }
            return false
        }
        open.append(
            end == .start
                ? ByteRange(range.offset + length, to: range.end)
                : ByteRange(range.offset, to: range.end - length))
        return true
    }

    /// Goes to the other edge of an area, or back to the first one of the next area.
    private mutating func turn() {
        isTrimmed.toggle()
        end = end.other
    }

    /// Leaves edges that are next to a failed sector; between two of them the area is trimmed.
    private mutating func leaveTrimmedEdges() {
        while let range = open.last {
            let beside = map.status(at: end == .start ? range.offset - 1 : range.end)
            guard beside == .bad || beside == .unscraped else { return }
            if isTrimmed {
                map.raise(range, to: .unscraped)
                leave(.max)
            } else {
                turn()
            }
        }
    }

    private func piece(of range: ByteRange) -> ByteRange {
        let length =
            switch step {
            case .copy(pass: 1): window
            case .copy: min(window, Self.smallPiece.roundedUp(to: unit))
            case .late where map.status(at: range.offset) == .untried:
                min(window, Self.smallPiece.roundedUp(to: unit))
            case .trim, .scrape, .retry, .late: unit
            }
        guard length < range.length else { return range }
        guard end == .end else { return ByteRange(offset: range.offset, length: length) }
        // Only the end of the device is within a unit.
        return ByteRange((range.end - length).roundedUp(to: unit), to: range.end)
    }

    /// Begins the next step.
    ///
    /// - Parameter position: where a copying pass goes on.
    private mutating func begin(at position: Int?) {
        step = steps.removeFirst()
        end = isReversed ? .end : .start
        isTrimmed = false
        var ranges: [ByteRange]
        switch step {
        case .copy(let pass):
            (map.phase, map.pass) = (.copying, pass)
            end = pass == 2 ? .end : .start
            ranges = map.ranges(.untried)
        case .trim:
            (map.phase, map.pass) = (.trimming, 1)
            ranges = map.ranges(.untrimmed)
        case .scrape:
            (map.phase, map.pass) = (.scraping, 1)
            ranges = map.ranges(.unscraped)
        case .retry:
            (map.phase, map.pass) = (.retrying, isReversed ? 2 : 1)
            ranges = badBefore
        case .late:
            (map.phase, map.pass) = (.copying, 5)
            end = .start
            ranges = late.sorted { $0.offset < $1.offset }
            late = []
        }
        for piece in late { ranges = ranges.flatMap { $0.without(piece) } }
        if let position {
            let part =
                end == .start
                ? ByteRange(min(position, map.size), to: map.size)
                : ByteRange(0, to: min(position, map.size))
            ranges = ranges.compactMap { $0.intersection(part) }
        }
        open = ranges.rounded(to: unit, limit: map.size)
        if end == .start { open.reverse() }
    }
}
