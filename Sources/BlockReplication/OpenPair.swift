// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockClient
internal import BlockDevices
internal import DeviceProbe
internal import LinuxIO
internal import SyncEngine
internal import Synchronization
internal import UndoJournal
internal import WireProtocol

/// Both devices of one run, open until this object is released, or on a server until the run ends.
final class OpenPair: Sendable {
    let action: Replication.Action
    let operands: Operands
    let options: Replication.Options
    let events: @Sendable (Replication.Event) -> Void
    let sourceEnd: OpenedSource
    let targetEnd: AdmittedTarget
    let endpoints: (source: any Endpoint, target: any Endpoint)
    let engineOptions: SyncOptions
    /// Warnings from before the first write.
    let earlyWarnings = Mutex<[String]>([])
    let control: RunControl
    private let movedBackup: MovedBackup?
    /// The source, if it is standard input.
    let stream: StreamSource?
    /// Set if what is overwritten is kept.
    private let journal: TargetJournal?
    /// Set if the source fails.
    private let rescueFile: RescueFile?
    private let openSeconds: Double

    var source: String { operands.source.description }
    var target: String { operands.target.description }

    /// Opens both devices; the target passes the safety gate, here or on its server.
    ///
    /// If it throws, nothing has been written.
    init(
        _ action: Replication.Action, _ operands: Operands, options: Replication.Options,
        control: RunControl,
        _ events: @escaping @Sendable (Replication.Event) -> Void
    ) throws(ReplicationError) {
        let clock = ContinuousClock()
        let start = clock.now
        let kinds = Endpoints(
            options: options, digest: try options.digestMethod(),
            isCancelled: { control.isCancelled }, events: events)
        if action.writes { try options.checkJournal(operands) }
        if let checkpoint = options.checkpoint, action.writes {
            try CheckpointFile(checkpoint.file).check(
                operands, isAutomatic: checkpoint.isAutomatic)
        }
        var rescueFile: RescueFile?
        if let mapfile = options.mapfile, action != .compare {
            rescueFile = try RescueFile(mapfile, operands)
        }
        if action == .compare {
            (sourceEnd, targetEnd, endpoints) = try kinds.pair(operands)
        } else {
            let policy = options.policy(isDryRun: action == .dryRun)
            var wait = BusyWait(options.wait, control, events)
            (sourceEnd, targetEnd, endpoints) = try kinds.ends(operands, policy, &wait)
        }
        do throws(ReplicationError) {
            var engineOptions = try options.forEngine(action, sourceEnd, targetEnd, events)
            movedBackup = try options.movedBackup(sourceEnd, targetEnd, endpoints.target)
            engineOptions.tail += movedBackup?.backup ?? []
            stream = sourceEnd.device as? StreamSource
            if let stream {
                let end = options.end(of: sourceEnd, action, targetEnd)
                stream.setEnd(end)
                engineOptions.resizesToStream = end == .anywhere
                if end == .anywhere { engineOptions.resizeTo = nil }
            }
            self.engineOptions = engineOptions
            do throws(IOError) {
                journal =
                    action.writes ? try .of(targetEnd, operands, options.undo) : nil
            } catch {
                throw ReplicationError(error)
            }
            try rescueFile?.take(operands, sourceEnd, targetEnd, endpoints.target)
            self.rescueFile = rescueFile
        } catch {
            // Only a server has extended it already.
            if action.writes { _ = targetEnd.giveSizeBack() }
            sourceEnd.device.release(isComplete: false)
            targetEnd.device.release(isComplete: false)
            throw error
        }
        self.action = action
        self.operands = operands
        self.options = options
        self.events = events
        self.control = control
        openSeconds = (clock.now - start) / .seconds(1)
    }

    deinit { release(isDone: false) }

    /// Does the work once.
    ///
    /// - Parameters:
    ///   - changes: the only ranges that may differ, in bytes, ascending and disjoint; `nil` for
    ///     all. All other bytes are neither read nor written.
    ///   - stamp: the source's change counter from before `changes` were determined, which may lack
    ///     later writes.
    ///   - isResumed: whether all but `changes` was done by an earlier run.
    ///   - begin: called before the first write, once nothing has refused the run; an error that it
    ///     returns ends the run.
    ///   - end: called after the flush, while the target is open; returns whether the run counts.
    ///     If it does not count or is not complete, older snapshots of the target stay.
    func run(
        changes: [ByteRange]? = nil, since stamp: ChangeCounter? = nil, isResumed: Bool = false,
        begin: () -> IOError? = { nil }, end: (SyncReport) -> Bool
    ) -> Replication.Report {
        let sample = action == .compare ? sampleWindows : nil
        let changes = changes ?? sample?.ranges
        // A change map already leaves most of the source unread. A failing source is read as little
        // as possible.
        let isRead = rescueFile == nil && (changes == nil || isResumed)
        let stamp = isRead ? findHoles() ?? stamp : stamp
        let expected =
            rescueFile == nil ? expectedChange(changes, isResumed: isResumed) : ExpectedChange()
        if let ending = expected.ending {
            return ended(ending, isDone: false, refusal: expected.refusal)
        }
        if let failure = begin() {
            var ending = SyncReport(
                size: sourceEnd.facts.size, blockSize: engineOptions.layout.block)
            ending.failure = failure
            return ended(ending, isDone: false, refusal: nil)
        }
        let (source, target) = comparedDevices
        var engineOptions = engineOptions
        engineOptions.changes = changes
        engineOptions.recordsDone = options.checkpoint != nil
        engineOptions.sourceChangeCounter = stamp
        var result =
            action == .compare
            ? SyncEngine.compare(
                source: source, target: target, options: engineOptions, control: control)
            : synchronize(source, target, &engineOptions)
        // Nothing is known of the windows outside of a sample.
        if sample != nil { result.tally.unchanged = 0 }
        let backupDiffers = backupDiffers(&result)
        let counts = end(result)
        var refusal: ReplicationError?
        if action == .dryRun, let limit = options.maximumChange, !targetEnd.wasCreated,
            result.failure == nil, !result.wasInterrupted
        {
            refusal = self.refusal(share(of: result), limit)
        }
        var report = ended(result, isDone: counts, refusal: refusal)
        (report.round, report.roundBefore) = (sample?.round, sample?.before)
        if changes == nil, action != .compare, rescueFile == nil { report.fullComparison = "sync" }
        report.mapfile = rescueFile?.report(result.rescue)
        report.estimatedChange = expected.share.map { $0 * 100 }
        if rescueFile == nil, !isResumed, let warning = warning(after: expected, result) {
            report.closingWarnings.append(warning)
        }
        if backupDiffers {
            report.backupTableDiffers = true
            report.closingWarnings.append("\(operands.target): the backup GPT at its end differs")
        }
        if action.writes { report.closingWarnings += refreshCaches(result) }
        return report
    }

    /// Makes the target equal, from a failing source with its map; or compares in a dry run.
    private func synchronize(
        _ source: any BlockDevice, _ target: any BlockDevice, _ options: inout SyncOptions
    ) -> SyncReport {
        guard let rescueFile else {
            return SyncEngine.synchronize(
                source: source, target: target, options: options, control: control)
        }
        do throws(IOError) {
            let rescue = try rescueFile.rescue(source, layout: options.layout)
            if action.writes {
                return SyncEngine.synchronize(
                    source: source, target: target, options: options, control: control,
                    rescue: rescue)
            }
            // What refuses the run refuses its dry run as well.
            try rescue.check(
                source: source, target: target, layout: options.layout, control: control)
        } catch {
            var report = SyncReport(size: source.geometry.size, blockSize: options.layout.block)
            report.failure = error
            return report
        }
        options.changes = rescueFile.map.unfinished
        options.skipsUnreadable = true
        return SyncEngine.synchronize(
            source: source, target: target, options: options, control: control)
    }

    /// Whether a run that only compares finds another backup GPT than a sync would write.
    private func backupDiffers(_ result: inout SyncReport) -> Bool {
        guard !action.writes, let movedBackup, result.failure == nil, !result.wasInterrupted
        else { return false }
        do throws(IOError) { return try movedBackup.differs(on: targetEnd.device) } catch {
            result.failure = error
            return false
        }
    }

    private func ended(
        _ result: SyncReport, isDone: Bool, refusal: ReplicationError?
    ) -> Replication.Report {
        var (source, target) = (sourceEnd, targetEnd)
        if let stream {
            source.facts.size = stream.length
            if engineOptions.resizesToStream {
                target.resizeTo = stream.length == target.sizeBefore ? nil : stream.length
            }
        }
        var report = Replication.Report(
            result, action, source, target, sizePolicy: options.sizePolicy,
            openSeconds: openSeconds)
        report.warnings += earlyWarnings.withLock { $0 }
        report.refusal = refusal
        report.wasStopped = result.wasInterrupted && control.isStopped
        let sizeWarning = sizeWarning(after: result, isRefused: refusal != nil)
        if let journal {
            let (undo, warning) = journal.finish(isComplete: report.isDone && isDone)
            report.undo = undo.map { .init($0) }
            if let warning { report.warnings.append(warning) }
        }
        report.closingWarnings = release(isDone: report.isDone && isDone)
        if let kept = (targetEnd.device as? RemoteBlockDevice)?.undo {
            report.undo = .init(
                journal: kept.journal, bytes: kept.bytes, isUsable: kept.usable, isOnServer: true)
        }
        if let sizeWarning { report.closingWarnings.append(sizeWarning) }
        return report
    }

    private var sampleWindows: SampleWindows? {
        options.sample.map { sample in
            SampleWindows(
                sample, size: min(sourceEnd.facts.size, targetEnd.device.geometry.size))
        }
    }

    /// Both devices, shown as equal devices would be.
    ///
    /// If the backup of a GPT is moved, the primary headers differ. The local device then shows the
    /// header that the other one has, because a server compares its real bytes.
    var comparedDevices: (source: any BlockDevice, target: any BlockDevice) {
        let (source, target) = (sourceEnd.device, journal?.device ?? targetEnd.device)
        guard let movedBackup else { return (source, target) }
        return source.isRemote
            ? (source, movedBackup.target(target)) : (movedBackup.source(source), target)
    }

    @discardableResult private func release(isDone: Bool) -> [String] {
        sourceEnd.device.release(isComplete: isDone)
        let target = targetEnd.device
        let failures = target.release(isComplete: isDone)
        return target.isRemote ? failures.map { "\(target.name): \($0)" } : failures
    }

    /// Updates the kernel's caches and partition table of the target, and returns warnings.
    private func refreshCaches(_ result: SyncReport) -> [String] {
        for relative in targetEnd.relatives {
            BlockSpecialFile.writeBackCache(of: relative, dropping: true)
        }
        let device = targetEnd.device
        let update = KernelPartitions.update(device, wasWritten: result.tally.extents > 0)
        if update.wasRead { events(.note("\(device.name): partition table read again")) }
        return update.warning.map { [$0] } ?? []
    }
}
