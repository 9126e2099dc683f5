// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockReplication
internal import LinuxIO

/// Runs `sync`, `refresh` and `verify`: watches them, prints the result, ends the program.
struct RunCommand {
    private let common: ComparisonOptions
    private let operands: Operands
    private let action: Replication.Action
    private let stopAfter: TimeSpan?
    let control = Replication.Control()

    struct Outcome {
        var status: ExitStatus
        /// The message of the error that determines the status.
        var error: String?
        /// `nil` if nothing was compared.
        var report: Replication.Report?
    }

    init(
        _ common: ComparisonOptions, _ action: Replication.Action, stopAfter: TimeSpan?
    ) throws(ReplicationError) {
        self.stopAfter = stopAfter
        self.common = common
        operands = try common.operands
        self.action = action
    }

    /// Runs the command, and prints the result.
    func outcome(
        _ options: Replication.Options, endsWithDifferent: Bool = false
    ) -> Outcome {
        let console = common.console
        let (source, target) = ("\(operands.source)", "\(operands.target)")
        let report: Replication.Report
        do throws(CommandFailure) {
            try operands.refuseOwnOutput()
            report = try replicateToEnd(options, console)
            if let refusal = report.refusal {
                for failure in report.failures { console.error(failure.message) }
                throw CommandFailure(refusal)
            }
        } catch {
            console.error(error.message, advice: error.advice)
            if common.json {
                console.result(JSON.line(FailureRecord(error, command: action.rawValue)))
            }
            return Outcome(status: error.status, error: error.message)
        }
        let result = RunResult(
            report, source: source, target, endsWithDifferent: endsWithDifferent)
        for warning in result.warnings { console.warning(warning) }
        for error in result.errors { console.error(error.message, advice: error.advice) }
        var text: String?
        if common.json {
            text = JSON.line(ResultRecord(report, operands, result: result))
        } else if !common.quiet {
            text = Summary(report: report, source: source, target: target).text
        }
        // A written replica is durable, even if the result could not be printed.
        if let text, !console.result(text), result.status == .done, !action.writes {
            return Outcome(status: .deviceError, report: report)
        }
        return Outcome(
            status: result.status, error: result.errors.last?.message, report: report)
    }

    /// Replicates, and lets signals end the program once everything of the run is released.
    private func replicateToEnd(
        _ options: Replication.Options, _ console: Console
    ) throws(CommandFailure) -> Replication.Report {
        defer { RunWatcher.endAtSignals() }
        var options = options
        options.access = try common.credentials.access()
        common.credentials.warn(of: options.access.token, to: operands.remotes, console)
        do throws(ReplicationError) { return try replicate(options, console) } catch {
            // The end of a wait is an error only because the run was stopped.
            let isEnded = [.interrupted, .network].contains(error.kind) || error.isBusy
            guard control.isStopped, isEnded else { throw CommandFailure(error) }
            throw CommandFailure(
                .stopped,
                "\(operands.target): \(action.rawValue): stopped as asked, nothing was written")
        }
    }

    private func replicate(
        _ options: Replication.Options, _ console: Console
    ) throws(ReplicationError) -> Replication.Report {
        let (action, operands, target) = (action, operands, "\(operands.target)")
        let control = control
        let display = ProgressDisplay(common.progress, console)
        let show = { @Sendable (event: Replication.Event) in
            if case .waiting = event { display.makeRoom() }
            console.show(event)
        }
        let open = { @Sendable in
            Result { () throws(ReplicationError) in
                try Replication(action, operands, options: options, control: control, show)
            }
        }
        let stopping = { @Sendable in
            show(.waiting("stopping as asked, finishing the windows in work"))
        }
        return try StopTimer.limit(to: stopAfter, control, console, report: stopping) {
            () throws(ReplicationError) in
            // A signal must not end the program before it has removed the snapshot of the source.
            if options.readsVolume(action) {
                return try RunWatcher.watch(control, display, target: target, console) {
                    open().map { $0.run() }
                }.get()
            }
            // On a thread of its own, so that a signal ends the program even while a device does not
            // answer.
            let replication = try Threads.apart(open).get()
            return RunWatcher.watch(control, display, target: target, console) { replication.run() }
        }
    }
}

extension Console {
    func show(_ event: Replication.Event) {
        switch event {
        case .warning(let text): warning(text)
        case .advice(let text): status("  \(text)\n")
        case .note(let text): note(text)
        case .waiting(let text): information(text)
        case .failure(let failure): error(failure.message, advice: failure.advice)
        }
    }
}
