// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

/// Numbers as a person reads them.
///
/// `String(format:)` would link all of Foundation, which doubles the program's size.
enum Format {
    /// Formats bytes with three significant digits: `512 B`, `4.00 KiB`, `1.82 TiB`.
    static func bytes(_ count: Int) -> String {
        count < 1000 ? "\(count) B" : bytes(Double(count))
    }

    /// Formats a rate, which may exceed an `Int`.
    private static func bytes(_ count: Double) -> String {
        let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
        var value = count
        var unit = 0
        while value >= 999.5 && unit < units.count - 1 {
            value /= 1024
            unit += 1
        }
        if unit == 0 { return "\(fixed(value, 0)) B" }
        return "\(fixed(value, value < 9.995 ? 2 : value < 99.95 ? 1 : 0)) \(units[unit])"
    }

    /// Formats bytes exactly and readably: `1073741825 bytes (1.00 GiB)`.
    static func exactBytes(_ count: Int) -> String { "\(count) bytes (\(bytes(count)))" }

    static func fixed(_ value: Double, _ decimals: Int) -> String {
        guard value.isFinite, abs(value) < 1e15 else { return "?" }
        var scale = 1
        for _ in 0..<decimals { scale *= 10 }
        let scaled = Int((abs(value) * Double(scale)).rounded())
        let sign = value < 0 && scaled > 0 ? "-" : ""
        if decimals == 0 { return "\(sign)\(scaled)" }
        let fraction = String(scaled % scale)
        let zeros = String(repeating: "0", count: decimals - fraction.count)
        return "\(sign)\(scaled / scale).\(zeros)\(fraction)"
    }

    /// Formats a share in percent; only exact shares become 100 or 0.
    static func percent(_ share: Double) -> String {
        if share >= 1 { return "100 %" }
        if share <= 0 { return "0 %" }
        return "\(fixed(min(max(share * 100, 0.01), 99.99), 2)) %"
    }

    /// Formats a duration: `0.18 s`, `75.2 s`, `2:03:04`.
    static func seconds(_ seconds: Double) -> String {
        if seconds < 100 { return "\(fixed(seconds, seconds < 10 ? 2 : 1)) s" }
        return clock(seconds)
    }

    /// Formats a duration as a clock does: `0:07`, `12:45`, `2:03:04`.
    static func clock(_ seconds: Double) -> String {
        guard seconds.isFinite, seconds < 1e9 else { return "?" }
        let whole = Int(seconds.rounded())
        let (hours, minutes, rest) = (whole / 3600, whole / 60 % 60, whole % 60)
        let two = { (value: Int) in value < 10 ? "0\(value)" : "\(value)" }
        return hours > 0 ? "\(hours):\(two(minutes)):\(two(rest))" : "\(minutes):\(two(rest))"
    }

    static func rate(_ bytes: Int, _ seconds: Double) -> String {
        seconds > 0 ? "\(Format.bytes(Double(bytes) / seconds))/s" : "?"
    }

    static func count(_ number: Int, _ noun: String) -> String {
        "\(number) \(noun)\(number == 1 ? "" : "s")"
    }
}
