// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockReplication
internal import LinuxIO
internal import SyncEngine
internal import SystemPackage

/// The exit status of a run, with its errors and warnings.
struct RunResult {
    private(set) var status = ExitStatus.done
    private(set) var errors: [CommandFailure] = []
    private(set) var warnings: [String] = []

    /// - Parameter endsWithDifferent: whether differences lead to exit status 1.
    init(
        _ report: Replication.Report, source: String, _ target: String, endsWithDifferent: Bool
    ) {
        let (engine, action) = (report.engine, report.action)
        if engine.sourceChanged {
            warnings.append(
                action.writes
                    ? "\(source): changed while it was read: \(target) may hold a mixture of old and new"
                    : "\(source): changed while it was read")
        }
        if engine.restarts > 0 {
            warnings.append(
                "\(target): its session had ended, and other programs may have written to it, so "
                    + "everything was compared again")
        }
        if engine.targetChanged && !action.writes {
            warnings.append("\(target): changed while it was read")
        }
        if engine.tally.rewritten > 0 {
            warnings.append(
                "\(target): \(Format.exactBytes(engine.tally.rewritten)) could not be read "
                    + "and were rewritten")
        }
        if report.mapfile?.wasSilent == true {
            warnings.append("\(source): it does not answer any more, so the rest was not tried")
        }
        warnings += report.closingWarnings
        let hasDifferences =
            engine.tally.different > 0 || report.sizesDiffer || report.backupTableDiffers
        if engine.tally.unreadable > 0 { status = .unreadable }
        if action == .compare || endsWithDifferent, hasDifferences { status = .different }
        if let verification = engine.verification, verification.different > 0 {
            status = .different
            fail(
                CommandFailure(
                    .different,
                    "\(target): verify: \(Format.exactBytes(verification.different)) "
                        + "read back differently after the flush"
                        + (engine.targetWasOpened
                            ? "; another program had it open for writing" : ""),
                    advice: engine.sourceChanged
                        ? "The source is in use; sync from a snapshot of it."
                        : engine.targetWasOpened
                            ? "Stop that program and run it again."
                            : "Run it again; if it repeats, the device does not keep what is written."
                ))
        }
        if engine.targetChanged && action.writes {
            fail(
                CommandFailure(
                    .different,
                    "\(target): check at the end: another program "
                        + (engine.targetIsUnproven
                            ? "had it open for writing while it was compared"
                            : "wrote to it during the run"),
                    advice: "Stop that program and run it again."))
        }
        // If the run was ended for another reason, only that reason is reported.
        if engine.wasInterrupted, report.failures.isEmpty {
            fail(
                report.wasStopped
                    ? Self.stopped(report, target) : Self.interrupted(report, target))
        }
        if let error = engine.tally.writeErrors.first {
            var failure = CommandFailure(error)
            let count = engine.tally.writeErrorCount
            if count > 1 { failure.message += " (and \(Format.count(count - 1, "more extent")))" }
            failure.advice =
                error.errno == .noSpace
                ? "The rest is written; make room and run it again."
                : "The rest is written; run it again to try once more."
            fail(failure)
        }
        // A lost server also fails the flush. Only one of the two errors is reported.
        if let error = engine.flushError, error.isNetwork == false || engine.failure == nil {
            fail(CommandFailure(error))
        }
        if let error = engine.failure {
            var failure = CommandFailure(error)
            if error.isMediumError, error.object.isSame(as: source) {
                let rest = action == .compare ? "compares the rest" : "copies the rest"
                failure.advice = "--skip-unreadable \(rest) of a failing source."
            }
            fail(failure)
        }
        for failure in report.failures { fail(CommandFailure(failure)) }
    }

    private static func interrupted(
        _ report: Replication.Report, _ target: String
    ) -> CommandFailure {
        CommandFailure(
            .interrupted, "\(target): \(report.action.rawValue): interrupted, incomplete",
            advice: checkpointAdvice(report)
                ?? (report.action.writes ? "A second run finishes the job." : nil))
    }

    private static func stopped(
        _ report: Replication.Report, _ target: String
    ) -> CommandFailure {
        let engine = report.engine
        let done = report.checkpoint?.done ?? report.compared + report.unchanged
        let place =
            engine.verification != nil
            ? "while it was read back"
            : "after \(Format.bytes(done))"
                + (report.isSizeKnown ? " of \(Format.bytes(engine.size))" : "")
        let advice =
            report.mapfile == nil
            ? "The next run compares everything again, and writes only what differs."
            : "The next run tries what is missing."
        return CommandFailure(
            .stopped, "\(target): \(report.action.rawValue): stopped as asked, \(place)",
            advice: checkpointAdvice(report) ?? (report.action.writes ? advice : nil))
    }

    /// `nil` if the run has left no checkpoint.
    private static func checkpointAdvice(_ report: Replication.Report) -> String? {
        guard let checkpoint = report.checkpoint, let done = checkpoint.done else { return nil }
        return "The next run with this checkpoint continues after \(Format.bytes(done)) that are "
            + "done: \(checkpoint.file)"
    }

    /// Adds an error, whose status replaces earlier ones; callers add errors in ascending weight.
    private mutating func fail(_ failure: CommandFailure) {
        errors.append(failure)
        status = failure.status
    }
}
