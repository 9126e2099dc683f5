// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import BlockReplication
internal import SyncEngine

/// A run as `--json` prints it (docs/json.md); sizes and offsets in bytes, times in seconds.
struct ResultRecord: Encodable {
    private var command: String
    private var source: String
    private var target: String
    private var size: Int
    private var sourceSize: Int
    private var targetSize: Int
    private var resizedTo: Int?
    private var created: Bool
    private var blockSize: Int
    private var digest: String?
    private var compared: Int
    private var unchanged: Int
    private var different: Int
    private var differentBlocks: Int
    private var similarity: Double?
    private var estimatedChange: Double?
    private var fullComparison: String?
    private var covered: Double?
    private var written: Int
    private var zeroed: Int
    private var extents: Int
    private var wireBytes: Int?
    private var firstDifferences: [Range]
    private var readErrors: ReadErrors
    private var writeErrors: Int
    private var interrupted: Bool
    private var stopped: Bool
    private var sourceChanged: Bool
    private var targetChanged: Bool
    private var flushed: Bool
    private var verified: Bool?
    private var seconds: Seconds
    private var bytesPerSecond: Double?
    private var exitStatus: Int32
    private var undo: UndoResult?
    private var checkpoint: Checkpoint?
    private var map: Map?
    private var warnings: [String]
    private var errors: [String]

    private struct Range: Encodable {
        var offset: Int
        var length: Int

        init(_ range: ByteRange) {
            offset = range.offset
            length = range.length
        }
    }

    private struct Checkpoint: Encodable {
        var file: String
        /// Bytes that an earlier run had done, and that were not compared again.
        var resumed: Int
        /// Bytes of the target that were read of them, as a sample.
        var sampled: Int
        /// Bytes that are done according to the checkpoint that the run has left.
        var done: Int?
        var fallback: String?

        init(_ use: Replication.Report.CheckpointUse) {
            file = use.file
            (resumed, sampled, done, fallback) = (use.resumed, use.sampled, use.done, use.fallback)
        }
    }

    private struct Map: Encodable {
        var file: String
        /// Bytes of the source, as the other figures.
        var finished: Int
        var bad: Int
        var missing: Int
    }

    private struct ReadErrors: Encodable {
        /// Bytes of the source that were left out.
        var unreadable: Int
        var ranges: [Range]
        /// Bytes of the target that were written because they could not be read.
        var rewritten: Int
    }

    private struct Seconds: Encodable {
        var open: Double
        var sync: Double
        var flush: Double
        var verify: Double
        var total: Double
    }

    init(_ report: Replication.Report, _ operands: Operands, result: RunResult) {
        let engine = report.engine
        let tally = engine.tally
        command = report.action.rawValue
        source = "\(operands.source)"
        target = "\(operands.target)"
        size = engine.size
        sourceSize = report.sourceSize
        targetSize = report.targetSize
        resizedTo = report.resizedTo
        created = report.wasCreated
        blockSize = engine.blockSize
        digest = report.digest
        compared = tally.compared
        unchanged = tally.unchanged
        different = tally.different
        differentBlocks = tally.differentBlocks
        similarity = engine.similarity.map { $0 * 100 }
        estimatedChange = report.estimatedChange
        fullComparison = report.fullComparison
        covered = report.round.map { $0.share * 100 }
        written = tally.written
        zeroed = tally.zeroed
        extents = tally.extents
        wireBytes = report.traffic.map { $0.sent + $0.received }
        firstDifferences = engine.firstDifferences.prefix(16).map { Range($0) }
        readErrors = ReadErrors(
            unreadable: tally.unreadable, ranges: engine.unreadableRanges.map { Range($0) },
            rewritten: tally.rewritten)
        writeErrors = tally.writeErrorCount
        interrupted = engine.wasInterrupted && !report.wasStopped
        stopped = report.wasStopped
        sourceChanged = engine.sourceChanged
        targetChanged = engine.targetChanged
        flushed = engine.isFlushed
        verified = engine.verification.map {
            $0.different == 0 && $0.compared == engine.size && tally.unreadable == 0
                && !engine.targetIsUnproven
        }
        let times = engine.seconds
        seconds = Seconds(
            open: report.openSeconds, sync: times.sync, flush: times.flush, verify: times.verify,
            total: report.openSeconds + times.total)
        bytesPerSecond = times.sync > 0 ? Double(tally.compared) / times.sync : nil
        undo = report.undo.map { UndoResult($0) }
        checkpoint = report.checkpoint.map { Checkpoint($0) }
        map = report.mapfile.map {
            Map(file: $0.path, finished: $0.finished, bad: $0.bad, missing: $0.open)
        }
        exitStatus = result.status.rawValue
        warnings = report.warnings + result.warnings
        errors = result.errors.map(\.message)
    }
}

/// The output of `--json` if no run took place.
struct FailureRecord: Encodable {
    private var command: String
    private var exitStatus: Int32
    private var errors: [String]
    private var advice: String?
    private var cause: String?

    init(_ failure: CommandFailure, command: String) {
        self.command = command
        exitStatus = failure.status.rawValue
        errors = [failure.message]
        advice = failure.advice
        cause = failure.cause
    }
}
