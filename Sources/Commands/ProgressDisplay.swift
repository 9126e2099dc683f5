// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import ArgumentParser
internal import SyncEngine

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
    private let clock = ContinuousClock()
    private var phase: RunControl.Phase?
    private var phaseStart: ContinuousClock.Instant
    private var isLineOpen = false

    init(_ style: ProgressStyle, _ console: Console) {
        let isWatched = console.isTerminal && !console.isQuiet
        self.style = style == .auto ? (isWatched ? .bar : .none) : style
        self.console = console
        phaseStart = clock.now
    }

    var isShown: Bool { style != .none }

    mutating func show(_ progress: RunControl.Progress) {
        if progress.phase != phase {
            phase = progress.phase
            phaseStart = clock.now
        }
        let seconds = (clock.now - phaseStart) / .seconds(1)
        switch style {
        case .bar:
            console.status("\r\(line(progress, seconds))\u{1B}[K")
            isLineOpen = true
        case .json:
            console.status(json(progress, seconds) + "\n")
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
    mutating func finish(_ progress: RunControl.Progress) {
        if style == .json { show(progress) }
        clear()
    }

    private func line(_ progress: RunControl.Progress, _ seconds: Double) -> String {
        let name = "\(progress.phase)"
        guard progress.total > 0 else { return name }
        let share = Double(progress.done) / Double(progress.total)
        var parts = [
            name, "\(Wording.fixed(share * 100, 1)) %",
            "\(Wording.bytes(progress.done)) of \(Wording.bytes(progress.total))",
            Wording.rate(progress.done, seconds),
        ]
        if let left = secondsLeft(progress, seconds) { parts.append("\(Wording.clock(left)) left") }
        parts.append("\(Wording.bytes(progress.different)) differ")
        return parts.joined(separator: "  ")
    }

    private func json(_ progress: RunControl.Progress, _ seconds: Double) -> String {
        JSON.line(
            ProgressEvent(
                phase: "\(progress.phase)", done: progress.done, total: progress.total,
                different: progress.different, seconds: seconds,
                secondsLeft: secondsLeft(progress, seconds)))
    }

    /// At the pace so far.
    private func secondsLeft(_ progress: RunControl.Progress, _ seconds: Double) -> Double? {
        guard progress.done > 0, seconds > 0 else { return nil }
        return Double(progress.total - progress.done) * seconds / Double(progress.done)
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
