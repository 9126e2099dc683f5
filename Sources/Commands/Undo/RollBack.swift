// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import ArgumentParser
internal import BlockReplication
internal import LinuxIO

/// `blkferry rollback`: makes a target what it was before a run with `--undo`.
struct RollBack: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rollback",
        abstract: "Make a target what it was before a run with --undo.",
        discussion: """
            The run may have ended in any way, also by a power cut. The target must not be in use, \
            as for a sync. An interrupted rollback is finished by another one.
            """)

    @Flag(
        help: """
            Also write to a target to which others have written since, and to another device than \
            the journal's if TARGET names it.
            """)
    var overwrite = false

    @Flag(help: "Print the result as one JSON object.")
    var json = false

    @Flag(name: .shortAndLong, help: "Print errors and warnings only.")
    var quiet = false

    @Argument(help: "The file of --undo.", completion: .file())
    var journal: String

    @Argument(help: "Where its target is now, if not where it was.", completion: .file())
    var target: String?

    func run() throws {
        let console = Console(isQuiet: quiet)
        let control = Replication.Control()
        let result = RunWatcher.watch(
            control, ProgressDisplay(.none, console), target: target ?? journal, console,
            messages: .init(
                first: "interrupted, finishing the write in work",
                second: "\(journal): roll back: interrupted twice before it had finished",
                advice: "A second rollback finishes the job.")
        ) {
            Result { () throws(ReplicationError) in
                try Rollback(
                    journal, target: target, overwrites: overwrite,
                    isCancelled: { control.isCancelled }
                ).run()
            }
        }
        RunWatcher.endAtSignals()
        do throws(ReplicationError) { try show(result.get(), console) } catch {
            let failure = CommandFailure(error)
            console.error(failure.message, advice: failure.advice)
            if json { console.result(JSON.line(FailureRecord(failure, command: "rollback"))) }
            throw CommandEnd(status: failure.status)
        }
        throw CommandEnd(status: .done)
    }

    /// The result for `--json`; see docs/json.md.
    private struct Record: Encodable {
        var command = "rollback"
        var journal: String
        var target: String
        var written: Int
        var zeroed: Int
        var alreadyDone: Bool
        var removed: Bool
        var warnings: [String]
        var exitStatus: Int32 = 0
    }

    private func show(_ report: Rollback.Report, _ console: Console) {
        for warning in report.warnings { console.warning(warning) }
        if json {
            let record = Record(
                journal: journal, target: report.target, written: report.written,
                zeroed: report.zeroed, alreadyDone: report.wasDone, removed: report.wasRemoved,
                warnings: report.warnings)
            console.result(JSON.line(record))
        } else if !quiet {
            console.result(text(report))
        }
    }

    private func text(_ report: Rollback.Report) -> String {
        if report.wasDone { return "\(report.target): was rolled back before, nothing was written" }
        if report.wasEmpty {
            return "\(report.target): the run had written nothing, and nothing was written"
        }
        if report.wasRemoved { return "\(report.target): removed, as before the run" }
        return "\(report.target): as before the run\nwritten     "
            + "\(Format.exactBytes(report.written)), zeroed \(Format.exactBytes(report.zeroed))"
    }
}
