// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import BlockReplication
internal import DeviceProbe
internal import SyncEngine

/// The summary that a person reads at the end of a run.
struct Summary {
    private let outcome: Replication.Report
    private let kind: RunCommand.Kind
    private let source: String
    private let target: String

    init(_ outcome: Replication.Report, kind: RunCommand.Kind, source: String, target: String) {
        self.outcome = outcome
        self.kind = kind
        self.source = source
        self.target = target
    }

    var text: String {
        let report = outcome.engine
        let tally = report.tally
        var lines = ["\(printable(source)) -> \(printable(target)): \(verdict)"]
        lines.append("compared    \(Format.exactBytes(tally.compared))\(incompleteness)")
        if outcome.unchanged > 0 {
            lines.append(
                "unchanged   \(Format.exactBytes(outcome.unchanged)), as the snapshots tell")
        }
        lines.append(
            "different   \(Format.exactBytes(tally.different)) in "
                + "\(Format.count(tally.differentBlocks, "block")) of "
                + "\(Format.bytes(report.blockSize)), similarity "
                + (report.similarity.map(Format.percent) ?? "unknown"))
        switch kind {
        case .sync, .refresh:
            lines.append(
                "written     \(Format.exactBytes(tally.written)) in "
                    + "\(Format.count(tally.extents, "extent")), "
                    + "zeroed \(Format.exactBytes(tally.zeroed))")
        case .dryRun:
            lines.append("to write    \(Format.exactBytes(tally.different))")
        case .verify:
            break
        }
        if let verification = report.verification {
            lines.append(
                "read back   \(Format.exactBytes(verification.read)), "
                    + "different \(Format.exactBytes(verification.different))")
        }
        lines.append(
            "time        \(Format.seconds(report.seconds.total)), "
                + Format.rate(tally.compared, report.seconds.total))
        lines += list(
            kind == .verify ? "not read" : "not read, left as it was on the target",
            report.unreadableRanges)
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
            guard report.tally.different == 0, !outcome.backupTableDiffers else {
                return "different"
            }
            return report.tally.unreadable == 0
                ? "identical" : "identical but for unreadable blocks"
        case .dryRun:
            if outcome.wasCreated { return "would be created" }
            if outcome.sizesDiffer {
                return "would be resized from \(outcome.targetSize) bytes and synced"
            }
            return report.tally.different == 0 && !outcome.backupTableDiffers
                ? "nothing to do" : "would be synced"
        case .sync, .refresh:
            if report.flushError != nil { return "not flushed" }
            let isFlushed = report.isFlushed ? "flushed" : "not flushed"
            if report.tally.unreadable > 0 { return "synced but for unreadable blocks" }
            guard let verification = report.verification, !report.targetIsUnproven else {
                return "synced, \(isFlushed)"
            }
            return verification.different == 0
                ? "synced, \(isFlushed), verified" : "synced, verified to differ"
        }
    }

    private var incompleteness: String {
        let missing = outcome.engine.size - outcome.compared - outcome.unchanged
        return missing > 0 ? " of \(Format.bytes(outcome.engine.size))" : ""
    }

    /// Lists ranges under a heading, at most 16.
    private func list(_ heading: String, _ ranges: [ByteRange]) -> [String] {
        guard !ranges.isEmpty else { return [] }
        let shown = ranges.prefix(16).map { "  offset \($0.offset), length \($0.length)" }
        let rest = ranges.count > shown.count ? ["  and more"] : []
        return ["\(heading):"] + shown + rest
    }
}
