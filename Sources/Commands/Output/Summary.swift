// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import BlockReplication
internal import DeviceProbe
internal import SyncEngine

/// The summary that a person reads at the end of a run.
struct Summary {
    let report: Replication.Report
    let source: String
    let target: String

    var text: String {
        let engine = report.engine
        let tally = engine.tally
        var lines = ["\(printable(source)) -> \(printable(target)): \(verdict)"]
        lines.append("compared    \(Format.exactBytes(tally.compared))\(incompleteness)")
        if let round = report.round {
            lines.append(
                "covered     \(Format.percent(round.share)), together with earlier samples")
        }
        if let checkpoint = report.checkpoint, checkpoint.resumed > 0 {
            lines.append(
                "done before \(Format.exactBytes(checkpoint.resumed)), as "
                    + "\(printable(checkpoint.file)) shows")
        } else if report.unchanged > 0 {
            lines.append(
                "unchanged   \(Format.exactBytes(report.unchanged)), as the "
                    + (report.mapfile == nil ? "snapshots show" : "map says"))
        }
        lines.append(
            "different   \(Format.exactBytes(tally.different)) in "
                + "\(Format.count(tally.differentBlocks, "block")) of "
                + "\(Format.bytes(engine.blockSize)), similarity "
                + (engine.similarity.map(Format.percent) ?? "unknown"))
        switch report.action {
        case .synchronize, .refresh:
            lines.append(
                "written     \(Format.exactBytes(tally.written)) in "
                    + "\(Format.count(tally.extents, "extent")), "
                    + "zeroed \(Format.exactBytes(tally.zeroed))")
        case .dryRun:
            lines.append("to write    \(Format.exactBytes(tally.different))")
        case .compare:
            break
        }
        if let verification = engine.verification {
            lines.append(
                "read back   \(Format.exactBytes(verification.read)), "
                    + "different \(Format.exactBytes(verification.different))")
        }
        if let traffic = report.traffic {
            lines.append(
                "on the wire \(Format.exactBytes(traffic.sent)) sent, "
                    + "\(Format.exactBytes(traffic.received)) received")
        }
        if let undo = report.undo { lines.append(undo.line) }
        if let checkpoint = report.checkpoint, let done = checkpoint.done {
            lines.append(
                "checkpoint  \(Format.exactBytes(done)) are done, in "
                    + printable(checkpoint.file))
        }
        if let map = report.mapfile {
            lines.append(
                "map         \(Format.exactBytes(map.finished)) read, "
                    + "\(Format.exactBytes(map.bad)) bad, \(Format.exactBytes(map.open)) missing, "
                    + "in \(printable(map.path))")
        }
        lines.append(
            "time        \(Format.seconds(engine.seconds.total)), "
                + Format.rate(tally.compared, engine.seconds.total))
        lines += list(
            report.action == .compare ? "not read" : "not read, left as it was on the target",
            engine.unreadableRanges)
        if report.action == .compare { lines += list("first differences", engine.firstDifferences) }
        if let verification = engine.verification {
            lines += list("read back differently", verification.firstDifferences)
        }
        return lines.joined(separator: "\n")
    }

    private var verdict: String {
        let engine = report.engine
        if engine.failure != nil || engine.wasInterrupted || engine.tally.writeErrorCount > 0 {
            return "incomplete"
        }
        if report.action == .compare, report.sizesDiffer {
            return "different sizes, \(report.sourceSize) and \(report.targetSize) bytes"
        }
        switch report.action {
        case .compare:
            guard engine.tally.different == 0, !report.backupTableDiffers else {
                return "different"
            }
            let equal = report.round == nil ? "identical" : "no difference in the sample"
            return engine.tally.unreadable == 0 ? equal : "\(equal) but for unreadable blocks"
        case .dryRun:
            if report.wasCreated { return "would be created" }
            if report.sizesDiffer {
                return "would be resized from \(report.targetSize) bytes and synced"
            }
            return engine.tally.different == 0 && !report.backupTableDiffers
                ? "nothing to do" : "would be synced"
        case .synchronize, .refresh:
            if engine.flushError != nil { return "not flushed" }
            let isFlushed = engine.isFlushed ? "flushed" : "not flushed"
            if engine.tally.unreadable > 0 { return "synced but for unreadable blocks" }
            guard let verification = engine.verification, !engine.targetIsUnproven else {
                return "synced, \(isFlushed)"
            }
            return verification.different == 0
                ? "synced, \(isFlushed), verified" : "synced, verified to differ"
        }
    }

    private var incompleteness: String {
        let missing = report.engine.size - report.compared - report.unchanged
        return missing > 0 ? " of \(Format.bytes(report.engine.size))" : ""
    }

    /// Lists ranges under a heading, at most 16.
    private func list(_ heading: String, _ ranges: [ByteRange]) -> [String] {
        guard !ranges.isEmpty else { return [] }
        let shown = ranges.prefix(16).map { "  offset \($0.offset), length \($0.length)" }
        let rest = ranges.count > shown.count ? ["  and more"] : []
        return ["\(heading):"] + shown + rest
    }
}
