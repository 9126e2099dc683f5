// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockReplication
internal import LinuxIO
internal import SyncEngine
internal import SystemPackage

/// What a run comes to: its exit status and all that must be said about it.
struct Conclusion {
    private(set) var status = ExitStatus.done
    private(set) var errors: [CommandFailure] = []
    private(set) var warnings: [String] = []

    /// Judges a run.
    ///
    /// - Parameters:
    ///   - outcome: what the run came to.
    ///   - kind: what was asked for.
    ///   - source: what the user calls the source.
    ///   - target: what the user calls the target.
    ///   - endsWithDifferent: differences are what the user asked about.
    ///   - others: what else was in the way.
    init(
        _ outcome: Replication.Report, kind: RunPrinter.Kind, source: String, _ target: String,
        endsWithDifferent: Bool, others: [CommandFailure] = []
    ) {
        let report = outcome.engine
        if report.sourceChanged {
            warnings.append(
                kind.isSync
                    ? "\(source): changed while it was read: \(target) may hold a mixture of old and new"
                    : "\(source): changed while it was read")
        }
        if report.targetChanged { warnings.append("\(target): changed while it was read") }
        if report.tally.rewritten > 0 {
            warnings.append(
                "\(target): \(Wording.exactBytes(report.tally.rewritten)) could not be read "
                    + "and were written anew")
        }
        warnings += outcome.closingWarnings
        let hasDifferences = report.tally.different > 0 || outcome.sizesDiffer
        if report.tally.unreadable > 0 { status = .unreadable }
        if kind == .verify || endsWithDifferent, hasDifferences { status = .different }
        if let verification = report.verification, verification.different > 0 {
            status = .different
            fail(
                CommandFailure(
                    .different,
                    "\(target): verify: \(Wording.exactBytes(verification.different)) "
                        + "read back differently after the flush",
                    advice: report.sourceChanged
                        ? "The source is in use; sync from a snapshot of it."
                        : "Run it again; if it repeats, the device does not keep what is written."))
        }
        // Where the run was ended for another reason, that one is said.
        if report.wasInterrupted, others.isEmpty {
            fail(
                CommandFailure(
                    .interrupted, "\(target): \(kind.rawValue): interrupted, incomplete",
                    advice: kind.isSync ? "A second run finishes the job." : nil))
        }
        if let error = report.tally.writeErrors.first {
            var failure = CommandFailure(error)
            let count = report.tally.writeErrorCount
            if count > 1 { failure.message += " (and \(Wording.count(count - 1, "more extent")))" }
            failure.advice =
                error.errno == .noSpace
                ? "The rest is written; make room and run it again."
                : "The rest is written; run it again to try once more."
            fail(failure)
        }
        // A lost server is in the way of the flush as well; that is said once.
        if let error = report.flushError, error.isNetwork == false || report.failure == nil {
            fail(CommandFailure(error))
        }
        if let error = report.failure {
            var failure = CommandFailure(error)
            if error.isMediumError, error.object == source, kind != .verify {
                failure.advice = "--skip-unreadable copies the rest of a failing source."
            }
            fail(failure)
        }
        for failure in others { fail(failure) }
    }

    /// The last one counts: they come in the order of their weight.
    private mutating func fail(_ failure: CommandFailure) {
        errors.append(failure)
        status = failure.status
    }
}
