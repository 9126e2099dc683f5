// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import SyncEngine

/// What a run over two devices came to, beyond the engine's report.
struct RunOutcome {
    var report: SyncReport
    /// Bytes.
    var sourceSize: Int
    /// Bytes, before the run.
    var targetSize: Int
    /// The size that the target was given, in bytes.
    var resizedTo: Int?
    var wasCreated = false
    /// What was said before the run.
    var warnings: [String] = []
    /// A dry run found that the target has another size, or is yet to be created.
    var wouldResize = false
    /// The two cannot be equal, whatever their content.
    var sizesDiffer = false
    /// Differences are what the user asked about.
    var endsWithDifferent = false
}

/// Runs `sync` and `verify` alike: times and watches them, prints the result, ends the program.
struct RunPrinter {
    enum Kind: String {
        case sync
        case dryRun = "dry-run"
        case verify
    }

    private let options: ComparisonOptions
    private let kind: Kind

    init(_ options: ComparisonOptions, kind: Kind) {
        self.options = options
        self.kind = kind
    }

    /// Measures the phases that the engine does not know, and watches over the one that it does.
    struct Clock {
        fileprivate let options: ComparisonOptions
        /// Of the run that is going to be: connections ask it whether to go on.
        let control = RunControl()
        private let clock = ContinuousClock()
        private let start: ContinuousClock.Instant
        fileprivate private(set) var openSeconds = 0.0

        fileprivate init(_ options: ComparisonOptions) {
            self.options = options
            start = clock.now
        }

        /// To be called when both devices are open and admitted.
        mutating func isOpen() { openSeconds = (clock.now - start) / .seconds(1) }

        /// Runs the engine, with progress, ready for signals.
        func watch(_ work: (RunControl) -> SyncReport) -> SyncReport {
            let control = control
            let display = ProgressDisplay(options.progress, options.console)
            return RunWatcher.watch(control, display, target: options.target, options.console) {
                work(control)
            }
        }
    }

    /// Does the work, prints what it came to, and ends the program.
    ///
    /// - Parameter work: opens the devices and runs the engine.
    /// - Throws: `CommandEnd`, always.
    func run(_ work: (inout Clock) throws(CommandFailure) -> RunOutcome) throws {
        var clock = Clock(options)
        let console = options.console
        let outcome: RunOutcome
        do throws(CommandFailure) { outcome = try work(&clock) } catch {
            console.error(error.message, advice: error.advice)
            if options.json {
                console.result(JSON.line(FailureRecord(error, command: kind.rawValue)))
            }
            throw CommandEnd(status: error.status)
        }
        let conclusion = Conclusion(outcome, kind: kind, source: options.source, options.target)
        for warning in conclusion.warnings { console.warning(warning) }
        for error in conclusion.errors { console.error(error.message, advice: error.advice) }
        var text: String?
        if options.json {
            let record = ResultRecord(
                outcome, kind: kind, options: options, conclusion: conclusion,
                openSeconds: clock.openSeconds)
            text = JSON.line(record)
        } else if !options.quiet {
            text =
                Summary(outcome, kind: kind, source: options.source, target: options.target).text
        }
        // The replica is on the medium, whether or not somebody reads about it.
        if let text, !console.result(text), conclusion.status == .done, kind != .sync {
            throw CommandEnd(status: .deviceError)
        }
        throw CommandEnd(status: conclusion.status)
    }
}
