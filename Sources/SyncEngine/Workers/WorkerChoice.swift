// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

/// Decides how many threads of a pass take windows, and move data, while the round trip to the
/// server is long.
///
/// A thread has one request in progress. If the answer takes less than two round trips, the
/// thread mostly waits, and more threads move more. If it takes much longer, the line, a disk or a
/// processor is busy, and more threads only wait longer.
///
/// A comparison moves few bytes, so all threads compare until the first one has data to move.
///
/// It knows no clock. The threads of a pass share one choice.
package struct WorkerChoice: Sendable {
    /// The time of a request, in round trips, up to which more threads work.
    ///
    /// A request of two round trips waits as long as it moves data, or its connection was new.
    private static let waiting = 2.0

    /// The time of a request, in round trips, from which fewer threads work.
    private static let busy = 3.0

    /// Threads that one comparison adds, since it moves few bytes: four times as many threads after
    /// a round trip.
    private static let stepOfComparison = 3

    /// The number of threads on a short line, and the least on any line.
    package let usual: Int
    package let most: Int
    /// The threads that work now, the first ones.
    package private(set) var count: Int
    /// Requests with data in progress.
    private var moving = 0
    private var hasMoved = false
    private var hasEnded = false

    /// - Parameters:
    ///   - most: `nil` for `usual`.
    ///   - compares: whether the pass compares first.
    package init(usual: Int, most: Int?, compares: Bool) {
        self.usual = usual
        self.most = max(usual, most ?? usual)
        count = compares ? self.most : usual
    }

    /// Begins a request with data, unless as many are in progress as threads work; `false` then.
    package mutating func beginData() -> Bool {
        if !hasMoved { count = usual }
        guard moving < count else { return false }
        hasMoved = true
        moving += 1
        return true
    }

    /// Ends a request with data, and takes its time into account.
    ///
    /// - Parameters:
    ///   - seconds: `nil` after an error.
    ///   - roundTrip: in seconds; `nil` if more requests at once would not help.
    package mutating func endData(after seconds: Double?, roundTrip: Double?) {
        moving -= 1
        if let seconds { note(seconds, roundTrip, step: 1) }
    }

    /// Takes the time of a comparison that found few differences into account.
    package mutating func note(comparison seconds: Double, roundTrip: Double?) {
        note(seconds, roundTrip, step: Self.stepOfComparison)
    }

    private mutating func note(_ seconds: Double, _ roundTrip: Double?, step: Int) {
        guard let roundTrip else {
            count = usual
            return
        }
        if seconds < Self.waiting * roundTrip {
            count = min(most, count + step)
        } else if seconds > Self.busy * roundTrip {
            count = max(usual, count - 1)
        }
    }

    /// Whether a thread takes windows, or ends because there is none any more.
    package func takesWindows(_ index: Int) -> Bool { hasEnded || index < count }

    /// There is no window any more.
    package mutating func end() { hasEnded = true }
}
