// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

/// Detects an exchange that is too slow.
///
/// A server that sends one byte a minute is never silent, but would hold its client forever.
///
/// It is a balance in seconds. Elapsed time decreases the balance. Every `rate` bytes increase it
/// by one second, up to the silence that the request allows.
struct Pace {
    typealias Instant = ContinuousClock.Instant

    /// Bytes a second; four connections on a line of 9600 bit/s have slightly more each.
    static let leastRate = 256.0

    /// Seconds between two updates of the balance.
    private static let interval = 0.2

    private var balance: Double
    private var last = Instant.now
    /// Bytes of the exchange at the last update.
    private var bytes: UInt64

    /// Starts with a maximum balance in seconds, and the exchange's bytes in both directions so
    /// far.
    init(patience: Double, bytes: UInt64) {
        balance = patience
        self.bytes = bytes
    }

    /// Excludes time that this side spent, such as for the rate limit.
    mutating func excuse(_ time: Duration) { last += time }

    /// Updates the balance with the bytes of the exchange so far; `true` if it is negative.
    ///
    /// - Parameters:
    ///   - patience: maximum balance in seconds.
    ///   - rate: bytes that are worth a second.
    mutating func isTooSlow(
        bytes: @autoclosure () -> UInt64, patience: Double, rate: Double
    ) -> Bool {
        let now = Instant.now
        let elapsed = (now - last) / .seconds(1)
        guard elapsed >= Self.interval else { return false }
        let count = bytes()
        // The count starts again if libcurl repeats the request on another connection.
        let moved = count >= self.bytes ? count - self.bytes : count
        balance = min(patience, balance - elapsed + Double(moved) / rate)
        (last, self.bytes) = (now, count)
        return balance < 0
    }
}

/// The reasons for which an exchange counts as lost.
extension CurlTransfer {
    /// Whether the other kernel does not answer; `false` with a connector, whose sockets lead to a
    /// process of this machine.
    var isUnanswered: Bool {
        !sockets.isEmpty && sockets.allSatisfy(ActivityWatch.isUnanswered)
    }

    func silenceReason(_ seconds: Double) -> String {
        let time = seconds == seconds.rounded() ? "\(Int(seconds))" : "\(seconds)"
        return received > 0 ? "the answer stopped for \(time) s" : "no answer for \(time) s"
    }

    var slownessReason: String {
        received > 0
            ? "the answer comes too slowly: \(received) bytes so far"
            : "no answer, and bytes come and go too slowly"
    }

    static var lossReason: String {
        "the other host has acknowledged nothing for \(Int(CurlHandle.lossSeconds)) s"
    }

    var framingReason: String {
        "the server sends framing without end: \(moved) bytes for \(received) of the answer"
    }
}
