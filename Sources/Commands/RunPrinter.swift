// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockReplication
internal import SyncEngine

/// Runs `sync` and `verify` alike: watches over them, prints the result, ends the program.
struct RunPrinter {
    enum Kind: String {
        case sync
        case refresh
        case dryRun = "dry-run"
        case verify

        /// Whether the target is written.
        var isSync: Bool { self == .sync || self == .refresh }

        var action: Replication.Action {
            switch self {
            case .sync, .refresh: .synchronize
            case .dryRun: .dryRun
            case .verify: .compare
            }
        }
    }

    /// What a run came to, and what else was in the way.
    struct Outcome {
        var report: Replication.Report
        /// Of what is around the run, such as a snapshot of the source.
        var failures: [CommandFailure] = []
    }

    private let common: ComparisonOptions
    private let kind: Kind
    private let plan: VolumePlan

    /// - Parameters:
    ///   - common: the two devices, and how they are compared.
    ///   - kind: what is asked for.
    ///   - plan: what is to be done about a logical volume as source.
    init(_ common: ComparisonOptions, kind: Kind, plan: VolumePlan = VolumePlan()) {
        self.common = common
        self.kind = kind
        self.plan = plan
    }

    /// Does the work, prints what it came to, and ends the program.
    ///
    /// - Parameters:
    ///   - options: how; what the server is shown comes from the command line.
    ///   - endsWithDifferent: differences are what the user asked about.
    /// - Throws: `CommandEnd`, always.
    func run(_ options: Replication.Options, endsWithDifferent: Bool = false) throws {
        let console = common.console
        let outcome: Outcome
        do throws(CommandFailure) { outcome = try replicate(options, console) } catch {
            console.error(error.message, advice: error.advice)
            if common.json {
                console.result(JSON.line(FailureRecord(error, command: kind.rawValue)))
            }
            throw CommandEnd(status: error.status)
        }
        let report = outcome.report
        let conclusion = Conclusion(
            report, kind: kind, source: common.source, common.target,
            endsWithDifferent: endsWithDifferent, others: outcome.failures)
        for warning in conclusion.warnings { console.warning(warning) }
        for error in conclusion.errors { console.error(error.message, advice: error.advice) }
        var text: String?
        if common.json {
            let record = ResultRecord(report, kind: kind, options: common, conclusion: conclusion)
            text = JSON.line(record)
        } else if !common.quiet {
            text = Summary(report, kind: kind, source: common.source, target: common.target).text
        }
        // The replica is on the medium, whether or not somebody reads about it.
        if let text, !console.result(text), conclusion.status == .done, !kind.isSync {
            throw CommandEnd(status: .deviceError)
        }
        throw CommandEnd(status: conclusion.status)
    }

    private func replicate(
        _ options: Replication.Options, _ console: Console
    ) throws(CommandFailure) -> Outcome {
        var options = options
        options.access = try common.credentials.access()
        let events: @Sendable (Replication.Event) -> Void = { event in
            switch event {
            case .warning(let text): console.warning(text)
            case .note(let text): console.note(text)
            }
        }
        let display = ProgressDisplay(common.progress, console)
        if plan.isForVolumes {
            let control = RunControl()
            let run = VolumeRun(
                plan, kind, source: common.source, target: common.target, options, control,
                console, events)
            return try RunWatcher.watch(control, display, target: common.target, console) {
                () -> Result<Outcome, CommandFailure> in
                do throws(CommandFailure) { return .success(try run.run()) } catch {
                    return .failure(error)
                }
            }.get()
        }
        let replication: Replication
        do throws(ReplicationError) {
            replication = try Replication(
                kind.action, from: common.source, to: common.target, options: options,
                events: events)
        } catch {
            throw CommandFailure(error)
        }
        return RunWatcher.watch(replication.control, display, target: common.target, console) {
            Outcome(report: replication.run())
        }
    }
}
