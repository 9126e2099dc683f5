// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockReplication
internal import LinuxIO
internal import SyncEngine

/// Runs `sync`, `refresh` and `verify`: watches them, prints the result, ends the program.
struct RunCommand {
    enum Kind: String {
        case sync
        case refresh
        case dryRun = "dry-run"
        case verify

        var isSync: Bool { self == .sync || self == .refresh }

        var action: Replication.Action {
            switch self {
            case .sync, .refresh: .synchronize
            case .dryRun: .dryRun
            case .verify: .compare
            }
        }
    }

    struct Outcome {
        var report: Replication.Report
        /// Failures beside the run, such as those of a snapshot of the source.
        var failures: [CommandFailure] = []
    }

    private let common: ComparisonOptions
    private let operands: Operands
    private let kind: Kind
    private let plan: VolumePlan

    init(
        _ common: ComparisonOptions, kind: Kind, plan: VolumePlan = VolumePlan()
    ) throws(ReplicationError) {
        self.common = common
        operands = try common.operands
        self.kind = kind
        self.plan = plan
    }

    /// Runs the command, prints the result, and always throws `CommandEnd`.
    func run(_ options: Replication.Options, endsWithDifferent: Bool = false) throws {
        let console = common.console
        let (source, target) = ("\(operands.source)", "\(operands.target)")
        let outcome: Outcome
        do throws(CommandFailure) {
            try operands.refuseOwnOutput()
            outcome = try replicateToEnd(options, console)
            if let refusal = outcome.report.refusal {
                for failure in outcome.failures { console.error(failure.message) }
                throw CommandFailure(refusal)
            }
        } catch {
            console.error(error.message, advice: error.advice)
            if common.json {
                console.result(JSON.line(FailureRecord(error, command: kind.rawValue)))
            }
            throw CommandEnd(status: error.status)
        }
        let report = outcome.report
        let result = RunResult(
            report, kind: kind, source: source, target, endsWithDifferent: endsWithDifferent,
            others: outcome.failures)
        for warning in result.warnings { console.warning(warning) }
        for error in result.errors { console.error(error.message, advice: error.advice) }
        var text: String?
        if common.json {
            let record = ResultRecord(report, kind: kind, operands, result: result)
            text = JSON.line(record)
        } else if !common.quiet {
            text = Summary(report, kind: kind, source: source, target: target).text
        }
        // A written replica is durable, even if the result could not be printed.
        if let text, !console.result(text), result.status == .done, !kind.isSync {
            throw CommandEnd(status: .deviceError)
        }
        throw CommandEnd(status: result.status)
    }

    /// Replicates, and lets signals end the program once everything of the run is released.
    private func replicateToEnd(
        _ options: Replication.Options, _ console: Console
    ) throws(CommandFailure) -> Outcome {
        defer { RunWatcher.endAtSignals() }
        return try replicate(options, console)
    }

    private func replicate(
        _ options: Replication.Options, _ console: Console
    ) throws(CommandFailure) -> Outcome {
        var options = options
        options.access = try common.credentials.access()
        common.credentials.warn(of: options.access.token, to: operands.remotes, console)
        let events: @Sendable (Replication.Event) -> Void = { event in
            switch event {
            case .warning(let text): console.warning(text)
            case .note(let text): console.note(text)
            case .waiting(let text): console.information(text)
            }
        }
        let display = ProgressDisplay(common.progress, console)
        let (target, control) = ("\(operands.target)", RunControl())
        if plan.isForVolumes {
            let run = SnapshotRun(plan, kind, operands, options, control, console, events)
            return try RunWatcher.watch(control, display, target: target, console) {
                Result { () throws(CommandFailure) in try run.run() }
            }.get()
        }
        let (action, locations, chosen) = (kind.action, operands, options)
        // On a thread of its own, so that a signal ends the program even while a device does not
        // answer.
        let opened = Threads.apart {
            Result { () throws(ReplicationError) in
                try Replication(action, locations, options: chosen, control: control, events)
            }
        }
        let replication: Replication
        do throws(ReplicationError) { replication = try opened.get() } catch {
            throw CommandFailure(error)
        }
        return RunWatcher.watch(control, display, target: target, console) {
            Outcome(report: replication.run())
        }
    }
}
