// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import DeviceProbe
internal import LinuxIO
internal import SyncEngine
internal import WireProtocol

/// A run that continues from a checkpoint, and leaves one if it ends early.
///
/// A checkpoint only saves work. If anything about it is in doubt, the run warns and compares
/// everything. Right before the first write to the target, the run marks the file as in use. It
/// writes a new checkpoint after the flush. So a run that is killed at any point leaves a file that
/// claims nothing, and a refused run leaves the file as it was.
struct CheckpointedRun: Sendable {
    let pair: OpenPair
    private let file: CheckpointFile
    private let isAutomatic: Bool
    private var settings: CheckpointRecord.Settings { .init(pair.options) }

    init(_ pair: OpenPair, _ checkpoint: Replication.Checkpoint) {
        self.pair = pair
        file = CheckpointFile(checkpoint.file)
        isAutomatic = checkpoint.isAutomatic
    }

    /// What the run found before it compares.
    private struct Start {
        var source: CheckpointSide?
        /// Whether both sides have a change counter, without which no checkpoint is of use.
        var isUseful = false
        /// What need not be compared.
        var done: [ByteRange] = []
        /// Ends the run before it writes.
        var failure: IOError?
    }

    /// Runs once.
    func run() -> Replication.Report {
        // Before the persistent counter and the samples, which take time.
        let stamp = pair.sourceEnd.device.changeCounter()
        var use = Replication.Report.CheckpointUse(file: file.name)
        let start = begin(&use)
        let size = pair.sourceEnd.facts.size
        var warning: String?
        var report = pair.run(
            changes: start.done.isEmpty ? nil : start.done.complement(size: size), since: stamp,
            isResumed: !start.done.isEmpty,
            begin: { start.failure ?? markInUse(start) },
            end: { result in
                if !result.wasRestricted { use.resumed = 0 }
                warning = conclude(result, start, &use)
                return true
            })
        report.checkpoint = use
        if let warning { report.closingWarnings.append(warning) }
        return report
    }

    // MARK: Before the run

    private func begin(_ use: inout Replication.Report.CheckpointUse) -> Start {
        var start = Start()
        do throws(ReplicationError) {
            // The flush also writes out what other programs left in the page cache.
            try pair.flushTarget()
            let source = try pair.side(.source)
            let target = try pair.side(.target)
            start.source = source
            start.isUseful = source.counter != nil && target.counter != nil
            do throws(IOError) {
                let doubt: CheckpointDoubt?
                switch try file.read() {
                case .missing: doubt = nil
                case .foreign(let reason): throw file.refusal(reason, isAutomatic: isAutomatic)
                case .damaged(let reason): doubt = .damaged(reason)
                case .otherVersion: doubt = .otherVersion
                case .running(let process):
                    // The target of this run is claimed, so that run has another one.
                    guard !isRunning(process) else { throw inUse }
                    doubt = .unfinished
                case .record(let record):
                    doubt = resume(record, source, target, &start, &use)
                }
                if let doubt { fallBack(doubt, &use) }
            } catch {
                start.failure = error
            }
            if let side = [source, target].first(where: { $0.counter == nil }) {
                warnOfNone(side, use)
            }
        } catch {
            fallBack(.failed(error.message), &use)
        }
        return start
    }

    private var noneLeft: String {
        "\(file.name): no checkpoint is left, and the next run compares everything:"
    }

    private var inUse: IOError {
        .refusal(
            .locked, file.name, "another run uses this checkpoint",
            advice: "Give each pair of devices a checkpoint of its own.")
    }

    /// Takes over what is done; or returns why that is in doubt.
    private func resume(
        _ record: CheckpointRecord, _ source: CheckpointSide, _ target: CheckpointSide,
        _ start: inout Start, _ use: inout Replication.Report.CheckpointUse
    ) -> CheckpointDoubt? {
        if let doubt = record.doubt(source, target, settings) { return doubt }
        guard let done = record.doneRanges else { return .damaged("its list is invalid") }
        do throws(ReplicationError) {
            var random = SystemRandomNumberGenerator()
            let fresh = DoneSample.fresh(
                in: done, unit: pair.engineOptions.layout.region, size: source.size,
                seed: random.next())
            guard !fresh.isEmpty else { return .tooLittle }
            let kept = DoneSample.kept(in: done, size: source.size, seed: record.sample.seed)
            use.sampled = kept.byteCount + fresh.byteCount
            guard try pair.sampleDigest(of: .target, at: kept.asRanges) == record.sample.digest
            else {
                return .changed(target.name)
            }
            let sample = try pair.compare(fresh)
            if let place = sample.firstDifferences.first {
                return .differs(target.name, at: place.offset)
            }
            guard sample.tally.compared == fresh.byteCount else {
                return .failed("the sample could not be compared")
            }
            // A session that is lost from now on makes the engine compare everything.
            guard !pair.hasLostTarget else { return .written(target.name) }
        } catch {
            return .failed(error.message)
        }
        start.done = done
        use.resumed = done.byteCount
        pair.events(
            .note(
                "\(file.name): an earlier run has done \(use.resumed) of \(source.size) bytes, and "
                    + "this one continues"))
        return nil
    }

    private func fallBack(
        _ doubt: CheckpointDoubt, _ use: inout Replication.Report.CheckpointUse
    ) {
        use.fallback = doubt.word
        // A cancelled run compares nothing more.
        guard !pair.control.isCancelled else { return }
        pair.events(
            .warning("falls back to a full comparison: \(file.name): \(doubt.message)"))
    }

    /// Says once that no checkpoint will be left.
    private func warnOfNone(_ side: CheckpointSide, _ use: Replication.Report.CheckpointUse) {
        guard use.fallback != CheckpointDoubt.noCounter("").word else { return }
        let text = "\(noneLeft) \(side.messageForNone)"
        pair.events(isAutomatic ? .note(text) : .warning(text))
    }

    /// Makes sure that the file claims nothing from now on, and that it can be written.
    private func markInUse(_ start: Start) -> IOError? {
        do throws(IOError) {
            if start.isUseful { try file.begin() } else { try file.remove() }
            return nil
        } catch {
            // Nobody has asked for it, and there is none that could claim anything.
            guard isAutomatic, (try? file.read()) == .missing else { return error }
            pair.events(.warning("\(error)"))
            return nil
        }
    }

    // MARK: After the flush

    /// Removes the file after a complete run, and leaves a checkpoint otherwise.
    ///
    /// - Returns: a warning that no checkpoint could be left.
    private func conclude(
        _ result: SyncReport, _ start: Start, _ use: inout Replication.Report.CheckpointUse
    ) -> String? {
        guard start.isUseful else { return nil }
        do throws(IOError) {
            guard result.endedEarly else {
                try file.remove()
                return nil
            }
            let reason: String
            switch record(result, start) {
            case .success(let record):
                try file.write(record)
                use.done = record.doneRanges?.byteCount
                return nil
            case .failure(let doubt): reason = doubt.message
            }
            try file.remove()
            return "\(noneLeft) \(reason)"
        } catch {
            // It is marked as in use, and claims nothing.
            return "\(error); the next run compares everything"
        }
    }

    private func record(
        _ result: SyncReport, _ start: Start
    ) -> Result<CheckpointRecord, NoCheckpoint> {
        let (source, target) = (pair.source, pair.target)
        guard result.flushError == nil, result.isFlushed else {
            return .failure(NoCheckpoint("\(target) was not flushed"))
        }
        guard !result.sourceChanged, let sourceSide = start.source?.record else {
            return .failure(NoCheckpoint("another program has written to \(source)"))
        }
        guard result.verification?.different ?? 0 == 0 else {
            return .failure(NoCheckpoint("\(target) reads back differently"))
        }
        let done = (result.wasRestricted ? start.done : []).union(result.done)
        var random = SystemRandomNumberGenerator()
        let seed: UInt64 = random.next()
        let isEnough = !DoneSample.fresh(
            in: done, unit: SamplePlan.region, size: sourceSide.size, seed: seed
        ).isEmpty
        guard isEnough else { return .failure(NoCheckpoint("too little was done")) }
        do throws(IOError) {
            // A server checks that itself, and may be lost.
            for device in [pair.sourceEnd.device, pair.targetEnd.device] where !device.isRemote {
                try device.checkIdentity()
            }
        } catch {
            return .failure(NoCheckpoint(error.description))
        }
        do throws(ReplicationError) {
            let kept = DoneSample.kept(in: done, size: sourceSide.size, seed: seed)
            let digest = try pair.sampleDigest(of: .target, at: kept.asRanges)
            guard !result.targetChanged, !result.targetWasOpened, !pair.hasLostTarget,
                let targetSide = try pair.sideOfOnlyWriter().record
            else {
                return .failure(
                    NoCheckpoint(
                        "\(target): other programs may have written to it during the run"))
            }
            return .success(
                CheckpointRecord(
                    source: sourceSide, target: targetSide, settings: settings,
                    sample: .init(seed: seed, digest: digest), done: done))
        } catch {
            return .failure(NoCheckpoint(error.message))
        }
    }
}

/// Why a run that ended early leaves no checkpoint.
private struct NoCheckpoint: Error {
    var message: String

    init(_ message: String) { self.message = message }
}

extension SyncReport {
    /// Whether another run is needed to make the target complete, or to read it back.
    fileprivate var endedEarly: Bool {
        failure != nil || flushError != nil || wasInterrupted || tally.writeErrorCount > 0
    }
}

extension [ByteRange] {
    fileprivate var asRanges: [Range<Int>] { map { $0.offset..<$0.end } }
}
