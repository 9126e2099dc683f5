// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import LinuxIO
internal import Synchronization

/// The arithmetic of a rate limit on a shared line.
///
/// It is a token bucket in the form of the generic cell rate algorithm (ITU-T I.371). It stores no
/// count of tokens, only the instant until which the line is busy.
struct TokenBucket {
    typealias Instant = ContinuousClock.Instant

    /// Unused line time that can be made up for.
    ///
    /// It is long enough to make up for sleeps that last longer than asked for. It is short enough
    /// to prevent a noticeable burst.
    static let burst = Duration.milliseconds(50)

    let bytesPerSecond: Double
    private var takenUntil: Instant

    init(bytesPerSecond: Int, now: Instant) {
        precondition(bytesPerSecond > 0)
        self.bytesPerSecond = Double(bytesPerSecond)
        takenUntil = now - Self.burst
    }

    /// Reserves the line for some bytes; returns when they have passed.
    mutating func take(_ bytes: Int, now: Instant) -> Instant {
        takenUntil = max(takenUntil, now - Self.burst) + .seconds(Double(bytes) / bytesPerSecond)
        return takenUntil
    }
}

/// Limits the rate of all connections of a transport together.
final class RateLimiter: Sendable {
    /// Shorter sleeps are skipped; the bucket makes later bytes wait for them.
    private static let shortest = Duration.milliseconds(1)

    /// Bytes that a connection should transfer at once: 10 ms worth, so that connections take
    /// turns.
    let portion: Int
    /// Bytes that the kernel may receive ahead on a connection: 100 ms worth.
    ///
    /// Without this limit the kernel receives megabytes before the client reads them.
    let receiveWindow: Int

    private let bucket: Mutex<TokenBucket>

    init(bytesPerSecond: Int) {
        bucket = Mutex(TokenBucket(bytesPerSecond: bytesPerSecond, now: .now))
        portion = min(max(bytesPerSecond / 100, 512), 256 << 10)
        receiveWindow = min(max(bytesPerSecond / 10, 16 << 10), 4 << 20)
    }

    /// Counts bytes without sleeping; the next call to `pass` sleeps for them too.
    func charge(_ bytes: Int) {
        _ = bucket.withLock { $0.take(bytes, now: .now) }
    }

    /// Counts bytes and sleeps until they have passed; `false` if `isCancelled` ended the sleep.
    func pass(_ bytes: Int, isCancelled: () -> Bool) -> Bool {
        let through = bucket.withLock { $0.take(bytes, now: .now) }
        guard through - .now >= Self.shortest else { return true }
        return pause(until: through, unless: isCancelled)
    }
}
