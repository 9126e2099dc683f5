// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import ArgumentParser
internal import BlockReplication

enum ProgressStyle: String, CaseIterable, ExpressibleByArgument {
    /// A bar on a terminal, otherwise none.
    case auto
    case bar
    case json
    case none
}

/// Shows the progress of a run: one line that is overwritten, or one JSON object a line.
///
/// It leaves out what a full pipe does not take, because the thread that shows it handles signals.
struct ProgressDisplay: Sendable {
    private let style: ProgressStyle
    private let console: Console
    private var isLineOpen = false

    init(_ style: ProgressStyle, _ console: Console) {
        var console = console
        console.waitsForReader = false
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

    /// Clears the line of the bar for a line of another thread; the bar continues below it.
    func makeRoom() {
        if style == .bar, !console.isQuiet { console.status("\r\u{1B}[K") }
    }

    mutating func clear() {
        if isLineOpen { console.status("\r\u{1B}[K") }
        isLineOpen = false
    }

    /// Shows a last JSON object, or clears the line of the bar.
    mutating func finish(_ progress: Replication.Progress) {
        if style == .json { show(progress) }
        clear()
    }

    private func line(_ progress: Replication.Progress) -> String {
        let name = progress.phase.rawValue
        guard progress.total > 0, progress.phase != .flush else { return name }
        let share = Double(progress.done) / Double(progress.total)
        var parts = [
            name, "\(Format.fixed(share * 100, 1)) %",
            "\(Format.bytes(progress.done)) of \(Format.bytes(progress.total))",
            Format.rate(progress.done, progress.seconds),
        ]
        if let left = secondsLeft(progress) { parts.append("\(Format.clock(left)) left") }
        parts.append("\(Format.bytes(progress.different)) differ")
        return parts.joined(separator: "  ")
    }

    private func json(_ progress: Replication.Progress) -> String {
        JSON.line(
            ProgressEvent(
                phase: progress.phase.rawValue, done: progress.done, total: progress.total,
                different: progress.different, seconds: progress.seconds,
                secondsLeft: secondsLeft(progress)))
    }

    /// The estimate at the average pace so far.
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
