// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import ArgumentParser
internal import BlockReplication

/// How progress is shown, on standard error.
enum ProgressStyle: String, CaseIterable, ExpressibleByArgument {
    /// A bar on a terminal, nothing elsewhere.
    case auto
    case bar
    case json
    case none
}

/// Shows how far a run is: one line that is overwritten, or one JSON object a line.
struct ProgressDisplay: Sendable {
    private let style: ProgressStyle
    private let console: Console
    private var isLineOpen = false

    init(_ style: ProgressStyle, _ console: Console) {
        let isWatched = console.isTerminal && !console.isQuiet
        self.style = style == .auto ? (isWatched ? .bar : .none) : style
        self.console = console
    }

    var isShown: Bool { style != .none }

    mutating func show(_ progress: Replication.Progress) {
        switch style {
        case .bar:
            console.status("\r\(line(progress))\u{1B}[K")
            isLineOpen = true
        case .json:
            console.status(json(progress) + "\n")
        case .auto, .none:
            break
        }
    }

    /// Takes the line away.
    mutating func clear() {
        if isLineOpen { console.status("\r\u{1B}[K") }
        isLineOpen = false
    }

    /// Shows the end: scripts get a last object, a terminal its line back.
    mutating func finish(_ progress: Replication.Progress) {
        if style == .json { show(progress) }
        clear()
    }

    private func line(_ progress: Replication.Progress) -> String {
        let name = progress.phase.rawValue
        guard progress.total > 0, progress.phase != .flush else { return name }
        let share = Double(progress.done) / Double(progress.total)
        var parts = [
            name, "\(Wording.fixed(share * 100, 1)) %",
            "\(Wording.bytes(progress.done)) of \(Wording.bytes(progress.total))",
            Wording.rate(progress.done, progress.seconds),
        ]
        if let left = secondsLeft(progress) { parts.append("\(Wording.clock(left)) left") }
        parts.append("\(Wording.bytes(progress.different)) differ")
        return parts.joined(separator: "  ")
    }

    private func json(_ progress: Replication.Progress) -> String {
        JSON.line(
            ProgressEvent(
                phase: progress.phase.rawValue, done: progress.done, total: progress.total,
                different: progress.different, seconds: progress.seconds,
                secondsLeft: secondsLeft(progress)))
    }

    /// At the pace so far.
    private func secondsLeft(_ progress: Replication.Progress) -> Double? {
        guard progress.done > 0, progress.phase != .flush else { return nil }
        let share = Double(progress.total - progress.done) / Double(progress.done)
        return share * progress.seconds
    }
}

/// A line of `--progress json`; sizes in bytes.
private struct ProgressEvent: Encodable {
    var phase: String
    var done: Int
    var total: Int
    var different: Int
    var seconds: Double
    var secondsLeft: Double?
}
