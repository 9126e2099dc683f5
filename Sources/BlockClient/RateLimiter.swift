// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
internal import Synchronization

/// The arithmetic of a rate limit: each byte takes its time on a line that is shared.
///
/// A token bucket told by the clock (the generic cell rate algorithm, ITU-T I.371): there is no
/// count to be refilled, only the instant up to which the line is taken.
struct TokenBucket {
    typealias Instant = ContinuousClock.Instant

    /// Time on the line that is not lost when nobody uses it.
    ///
    /// Long enough to make up for sleeps that last a little longer than asked for, short enough
    /// that the line carries no burst worth the name.
    static let burst = Duration.milliseconds(50)

    let bytesPerSecond: Double
    private var takenUntil: Instant

    init(bytesPerSecond: Int, now: Instant) {
        precondition(bytesPerSecond > 0)
        self.bytesPerSecond = Double(bytesPerSecond)
        takenUntil = now - Self.burst
    }

    /// Takes the line for so many bytes.
    ///
    /// - Returns: when they are through.
    mutating func take(_ bytes: Int, now: Instant) -> Instant {
        takenUntil = max(takenUntil, now - Self.burst) + .seconds(Double(bytes) / bytesPerSecond)
        return takenUntil
    }
}

/// Holds all connections of a transport together to a rate.
final class RateLimiter: Sendable {
    /// Sleeps shorter than this are left out; the bucket remembers them.
    private static let shortest = Duration.milliseconds(1)

    /// Bytes that a connection should ask for at once: 10 ms worth, so that several take turns.
    let portion: Int
    /// Bytes that the kernel may receive ahead on a connection: 100 ms worth.
    ///
    /// The kernel takes in megabytes that nobody has read yet, and they were on the wire.
    let receiveWindow: Int

    private let bucket: Mutex<TokenBucket>

    init(bytesPerSecond: Int) {
        bucket = Mutex(TokenBucket(bytesPerSecond: bytesPerSecond, now: .now))
        portion = min(max(bytesPerSecond / 100, 512), 256 << 10)
        receiveWindow = min(max(bytesPerSecond / 10, 16 << 10), 4 << 20)
    }

    /// Counts bytes whose time is waited for by the next one.
    func charge(_ bytes: Int) {
        _ = bucket.withLock { $0.take(bytes, now: .now) }
    }

    /// Counts bytes and sleeps until they are through.
    ///
    /// - Parameters:
    ///   - bytes: how many.
    ///   - isOver: asked now and then; it cuts the sleep short.
    /// - Returns: `false` where it was cut short.
    func pass(_ bytes: Int, isOver: () -> Bool) -> Bool {
        let through = bucket.withLock { $0.take(bytes, now: .now) }
        guard through - .now >= Self.shortest else { return true }
        return pause(until: through, unless: isOver)
    }
}

/// Sleeps in slices, so that a wish to end is seen soon.
///
/// - Parameters:
///   - end: until when.
///   - isOver: asked before each slice.
/// - Returns: `false` where `isOver` said so before the time had come.
func pause(until end: ContinuousClock.Instant, unless isOver: () -> Bool) -> Bool {
    while true {
        if isOver() { return false }
        let left = end - .now
        guard left > .zero else { return true }
        let slice = min(left, .milliseconds(50)) / .nanoseconds(1)
        var time = timespec(tv_sec: 0, tv_nsec: Int(slice))
        // A signal ends it early; the loop looks at the clock.
        nanosleep(&time, nil)
    }
}
