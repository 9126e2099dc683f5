// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import BlockReplication
internal import SyncEngine

/// The few lines that a person reads at the end of a run.
struct Summary {
    private let outcome: Replication.Report
    private let kind: RunPrinter.Kind
    private let source: String
    private let target: String

    init(_ outcome: Replication.Report, kind: RunPrinter.Kind, source: String, target: String) {
        self.outcome = outcome
        self.kind = kind
        self.source = source
        self.target = target
    }

    var text: String {
        let report = outcome.engine
        let tally = report.tally
        var lines = ["\(source) -> \(target): \(verdict)"]
        lines.append("compared    \(Wording.exactBytes(tally.compared))\(incompleteness)")
        if outcome.unchanged > 0 {
            lines.append(
                "unchanged   \(Wording.exactBytes(outcome.unchanged)), as the snapshots tell")
        }
        lines.append(
            "different   \(Wording.exactBytes(tally.different)) in "
                + "\(Wording.count(tally.differentBlocks, "block")) of "
                + "\(Wording.bytes(report.blockSize)), similarity "
                + (report.similarity.map(Wording.percent) ?? "unknown"))
        switch kind {
        case .sync, .refresh:
            lines.append(
                "written     \(Wording.exactBytes(tally.written)) in "
                    + "\(Wording.count(tally.extents, "extent")), "
                    + "zeroed \(Wording.exactBytes(tally.zeroed))")
        case .dryRun:
            lines.append("to write    \(Wording.exactBytes(tally.different))")
        case .verify:
            break
        }
        if let verification = report.verification {
            lines.append(
                "read back   \(Wording.exactBytes(verification.compared)), "
                    + "different \(Wording.exactBytes(verification.different))")
        }
        lines.append(
            "time        \(Wording.seconds(report.seconds.total)), "
                + Wording.rate(tally.compared, report.seconds.total))
        lines += list("not read, left as it was on the target", report.unreadableRanges)
        if kind == .verify { lines += list("first differences", report.firstDifferences) }
        if let verification = report.verification {
            lines += list("read back differently", verification.firstDifferences)
        }
        return lines.joined(separator: "\n")
    }

    private var verdict: String {
        let report = outcome.engine
        if report.failure != nil || report.wasInterrupted || report.tally.writeErrorCount > 0 {
            return "incomplete"
        }
        if kind == .verify, outcome.sizesDiffer {
            return "different sizes, \(outcome.sourceSize) and \(outcome.targetSize) bytes"
        }
        switch kind {
        case .verify:
            return report.tally.different == 0 ? "identical" : "different"
        case .dryRun:
            if outcome.wasCreated { return "would be created" }
            if outcome.sizesDiffer {
                return "would be resized from \(outcome.targetSize) bytes and synced"
            }
            return report.tally.different == 0 ? "nothing to do" : "would be synced"
        case .sync, .refresh:
            if report.flushError != nil { return "not flushed" }
            let isFlushed = report.isFlushed ? "flushed" : "not flushed"
            if report.tally.unreadable > 0 { return "synced but for unreadable blocks" }
            guard let verification = report.verification else { return "synced, \(isFlushed)" }
            return verification.different == 0
                ? "synced, \(isFlushed), verified" : "synced, verified to differ"
        }
    }

    private var incompleteness: String {
        let missing = outcome.engine.size - outcome.compared - outcome.unchanged
        return missing > 0 ? " of \(Wording.bytes(outcome.engine.size))" : ""
    }

    /// Ranges under a heading, not more than a screen holds.
    private func list(_ heading: String, _ ranges: [ByteRange]) -> [String] {
        guard !ranges.isEmpty else { return [] }
        let shown = ranges.prefix(16).map { "  offset \($0.offset), length \($0.length)" }
        let rest = ranges.count > shown.count ? ["  and more"] : []
        return ["\(heading):"] + shown + rest
    }
}
