// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CCurl
internal import Glibc

/// What a transport reports of an outage that lasts longer than a few seconds.
package enum Outage: Hashable, Sendable {
    /// Requests have failed for so many seconds, the last one for this reason.
    case began(seconds: Double, reason: String)
    /// A request succeeded, so many seconds after the first failure.
    case ended(seconds: Double)
}

extension Outage {
    /// The line for the user.
    ///
    /// - Parameter limit: the seconds for retries.
    func text(of server: String, limit: Double) -> String {
        switch self {
        case .began(let seconds, let reason):
            "waiting for \(server) since \(Self.clock(secondsAgo: seconds)), for up to "
                + "\(Self.duration(limit)): \(reason)"
        case .ended(let seconds):
            "\(server) answers again, after \(Self.duration(seconds))"
        }
    }

    /// Formats a duration as `30 s`, `5 min` or `2 h`, exact to the second.
    private static func duration(_ seconds: Double) -> String {
        guard let whole = Int(exactly: seconds.rounded()) else { return "\(seconds) s" }
        if whole > 0, whole % 3600 == 0 { return "\(whole / 3600) h" }
        if whole > 0, whole % 60 == 0 { return "\(whole / 60) min" }
        return "\(whole) s"
    }

    /// Formats the local time of day, such as `14:03:22`.
    private static func clock(secondsAgo seconds: Double) -> String {
        var moment = time(nil) - (Int(exactly: seconds.rounded()) ?? 0)
        var parts = tm()
        localtime_r(&moment, &parts)
        let two = { (number: Int32) in number < 10 ? "0\(number)" : "\(number)" }
        return "\(two(parts.tm_hour)):\(two(parts.tm_min)):\(two(parts.tm_sec))"
    }
}
