// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockReplication

/// Runs `sync` and `verify` alike: watches over them, prints the result, ends the program.
struct RunPrinter {
    enum Kind: String {
        case sync
        case dryRun = "dry-run"
        case verify

        fileprivate var action: Replication.Action {
            switch self {
            case .sync: .synchronize
            case .dryRun: .dryRun
            case .verify: .compare
            }
        }
    }

    private let common: ComparisonOptions
    private let kind: Kind

    init(_ common: ComparisonOptions, kind: Kind) {
        self.common = common
        self.kind = kind
    }

    /// Does the work, prints what it came to, and ends the program.
    ///
    /// - Parameters:
    ///   - options: how; what the server is shown comes from the command line.
    ///   - endsWithDifferent: differences are what the user asked about.
    /// - Throws: `CommandEnd`, always.
    func run(_ options: Replication.Options, endsWithDifferent: Bool = false) throws {
        let console = common.console
        let report: Replication.Report
        do throws(CommandFailure) { report = try replicate(options, console) } catch {
            console.error(error.message, advice: error.advice)
            if common.json {
                console.result(JSON.line(FailureRecord(error, command: kind.rawValue)))
            }
            throw CommandEnd(status: error.status)
        }
        let conclusion = Conclusion(
            report, kind: kind, source: common.source, common.target,
            endsWithDifferent: endsWithDifferent)
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
        if let text, !console.result(text), conclusion.status == .done, kind != .sync {
            throw CommandEnd(status: .deviceError)
        }
        throw CommandEnd(status: conclusion.status)
    }

    private func replicate(
        _ options: Replication.Options, _ console: Console
    ) throws(CommandFailure) -> Replication.Report {
        var options = options
        options.access = try common.credentials.access()
        let replication: Replication
        do throws(ReplicationError) {
            replication = try Replication(
                kind.action, from: common.source, to: common.target, options: options
            ) { event in
                switch event {
                case .warning(let text): console.warning(text)
                case .note(let text): console.note(text)
                }
            }
        } catch {
            throw CommandFailure(error)
        }
        let display = ProgressDisplay(common.progress, console)
        return RunWatcher.watch(replication.control, display, target: common.target, console) {
            replication.run()
        }
    }
}
