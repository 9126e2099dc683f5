// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import ArgumentParser

/// A duration as the user writes it: `30`, `30s`, `5m`, `2h`, `1.5d`.
struct TimeSpan: Hashable, Sendable {
    var duration: Duration

    /// Parses a number and a unit `s` (the default), `m`, `h` or `d`; `nil` for more than ten
    /// years.
    init?(_ text: String) {
        let number = text.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
        let factors = ["": 1.0, "s": 1, "m": 60, "h": 3600, "d": 86_400]
        guard number.first != ".", number.last != ".", let count = Double(number),
            let factor = factors[String(text.dropFirst(number.count))],
            count * factor <= 315_576_000
        else { return nil }
        duration = .milliseconds(Int((count * factor * 1000).rounded()))
    }
}

extension TimeSpan: ExpressibleByArgument {
    init?(argument: String) { self.init(argument) }
}

struct WaitOption: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Wait so long, such as 30s, 5m or 2h, for a TARGET that is mounted, claimed, locked or in "
                + "another session (default: 10s for locks and claims alone).",
            valueName: "duration"))
    var wait: TimeSpan?
}
