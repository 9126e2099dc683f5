// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices
package import DeviceProbe
internal import Glibc
package import LinuxIO
package import SyncEngine
internal import Synchronization

/// Makes one device the exact replica of another, transferring only differences, or compares them.
///
/// Both are named as on the command line: a path, `UUID=`, `LABEL=`, `PARTUUID=`, `PARTLABEL=` or
/// `LVUUID=` and a value, or a URL of `http`, `https` or `ssh`. At least one is on this machine.
///
///     let replication = try Replication(from: "/dev/vg0/snapshot", to: "https://host/UUID=…")
///     let report = replication.run { print("\($0.done) of \($0.total)") }
///     guard report.isDone else { … }
///
/// Both devices are open, and the target is claimed, while this object exists, or on a server until
/// the run ends. Calls block. The work runs in threads with all signals blocked.
public final class Replication: Sendable {
    public enum Action: Hashable, Sendable {
        /// The target is made equal to the source.
        case synchronize
        /// Nothing is written, but the safety gate checks the target.
        case dryRun
        /// The two are compared and nothing is written; the target may be in use.
        case compare
    }

    public enum Event: Hashable, Sendable {
        /// One line; the work continues, but its result may not be as intended.
        case warning(String)
        /// One line with details.
        case note(String)
        /// One line about what the work waits for before it starts.
        case waiting(String)
    }

    public let action: Action
    public var source: String { "\(operands.source)" }
    public var target: String { "\(operands.target)" }
    public let options: Options

    private let operands: Operands
    let events: @Sendable (Event) -> Void
    package let control: RunControl
    let sourceEnd: OpenedSource
    let targetEnd: AdmittedTarget
    let targetEndpoint: any Endpoint
    let engineOptions: SyncOptions
    /// Warnings from before the first write.
    let earlyWarnings = Mutex<[String]>([])
    private let movedBackup: MovedBackup?
    private let openSeconds: Double
    private let hasBegun = Atomic(false)

    /// Opens both devices; the target passes the safety gate, here or on its server.
    ///
    /// If it throws, nothing has been written. If it returns, a missing image or logical volume may
    /// have been created, and a server may have extended an image.
    ///
    /// - Parameter events: called in any thread until the run ends.
    public convenience init(
        _ action: Action = .synchronize, from source: String, to target: String,
        options: Options = Options(), events: @escaping @Sendable (Event) -> Void = { _ in }
    ) throws(ReplicationError) {
        try self.init(
            action, try Operands(source, target), options: options, control: RunControl(), events)
    }

    /// Does the same with a control that exists before the devices are open.
    package init(
        _ action: Action, _ operands: Operands, options: Options, control: RunControl,
        _ events: @escaping @Sendable (Event) -> Void
    ) throws(ReplicationError) {
        let clock = ContinuousClock()
        let start = clock.now
        try options.check()
        let endpoints = Endpoints(
            options: options, digest: try options.digestMethod(),
            isCancelled: { control.isCancelled }, events: events)
        if action == .compare {
            (sourceEnd, targetEnd, targetEndpoint) = try endpoints.pair(operands)
        } else {
            let policy = options.policy(isDryRun: action == .dryRun)
            var wait = BusyWait(options.wait, control, events)
            (sourceEnd, targetEnd, targetEndpoint) = try endpoints.ends(operands, policy, &wait)
        }
        do throws(ReplicationError) {
            var engineOptions = try options.forEngine(action, sourceEnd, targetEnd, events)
            movedBackup = try options.movedBackup(sourceEnd, targetEnd, targetEndpoint)
            engineOptions.tail += movedBackup?.backup ?? []
            self.engineOptions = engineOptions
        } catch {
            // Only a server has extended it already.
            if action == .synchronize { _ = targetEnd.giveSizeBack() }
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

    /// Ends the run after the windows in progress, and flushes the target; another run completes
    /// the job.
    public func cancel() { control.cancel() }

    public var isCancelled: Bool { control.isCancelled }

    /// The facts about the source from when it was opened.
    package var sourceFacts: SourceFacts { sourceEnd.facts }

    public var progress: Progress { Progress(control.progress) }

    /// Does the work once; the report contains the errors, because a failed run may have written.
    ///
    /// - Parameters:
    ///   - interval: between two calls of `progress`.
    ///   - progress: called in its own thread, but not after this returns.
    public func run(
        every interval: Duration = .milliseconds(200),
        progress: (@Sendable (Progress) -> Void)? = nil
    ) -> Report {
        precondition(
            !hasBegun.exchange(true, ordering: .relaxed), "a replication runs once: make another")
        guard let progress else { return perform() }
        let ticker = Ticker(interval) { [self] in progress(self.progress) }
        let report = perform()
        ticker.stop()
        return report
    }

    /// Does the work once.
    ///
    /// - Parameters:
    ///   - changes: the only ranges that may differ, in bytes, ascending and disjoint; `nil` for
    ///     all. All other bytes are neither read nor written.
    ///   - stamp: the source's change counter from before `changes` were determined, which may lack
    ///     later writes.
    ///   - begin: called before the first write, once nothing has refused the run; an error that it
    ///     returns ends the run.
    ///   - end: called after the flush, while the target is open; returns whether the run counts.
    ///     If it does not count or is not complete, older snapshots of the target stay.
    package func run(
        changes: [ByteRange]?, since stamp: ChangeCounter? = nil,
        begin: () -> IOError? = { nil }, end: (SyncReport) -> Bool
    ) -> Report {
        precondition(!hasBegun.exchange(true, ordering: .relaxed), "a replication runs once")
        return perform(changes, since: stamp, begin, end)
    }

    package func sourceChangeCounter() -> ChangeCounter? { sourceEnd.device.changeCounter() }

    private func perform(
        _ changes: [ByteRange]? = nil, since stamp: ChangeCounter? = nil,
        _ begin: () -> IOError? = { nil }, _ end: (SyncReport) -> Bool = { _ in true }
    ) -> Report {
        let expected = expectedChange(changes)
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
        engineOptions.sourceChangeCounter = stamp
        var result =
            action == .compare
            ? SyncEngine.compare(
                source: source, target: target, options: engineOptions, control: control)
            : SyncEngine.synchronize(
                source: source, target: target, options: engineOptions, control: control)
        let backupDiffers = backupDiffers(&result)
        let counts = end(result)
        var refusal: ReplicationError?
        if action == .dryRun, let limit = options.maximumChange, !targetEnd.wasCreated,
            result.failure == nil, !result.wasInterrupted
        {
            refusal = self.refusal(share(of: result), limit)
        }
        var report = ended(result, isDone: counts, refusal: refusal)
        report.estimatedChange = expected.share.map { $0 * 100 }
        if let warning = warning(after: expected, result) { report.closingWarnings.append(warning) }
        if backupDiffers {
            report.backupTableDiffers = true
            report.closingWarnings.append("\(self.target): the backup GPT at its end differs")
        }
        if action == .synchronize { report.closingWarnings += refreshCaches(result) }
        return report
    }

    /// Whether a run that only compares finds another backup GPT than a sync would write.
    private func backupDiffers(_ result: inout SyncReport) -> Bool {
        guard action != .synchronize, let movedBackup, result.failure == nil,
            !result.wasInterrupted
        else { return false }
        do throws(IOError) { return try movedBackup.differs(on: targetEnd.device) } catch {
            result.failure = error
            return false
        }
    }

    private func ended(
        _ result: SyncReport, isDone: Bool, refusal: ReplicationError?
    ) -> Report {
        var report = Report(
            result, action, sourceEnd, targetEnd, sizePolicy: options.sizePolicy,
            openSeconds: openSeconds)
        report.warnings += earlyWarnings.withLock { $0 }
        report.refusal = refusal
        let sizeWarning = sizeWarning(after: result, isRefused: refusal != nil)
        report.closingWarnings = release(isDone: report.isDone && isDone)
        if let sizeWarning { report.closingWarnings.append(sizeWarning) }
        return report
    }

    /// Both devices, shown as equal devices would be.
    ///
    /// If the backup of a GPT is moved, the primary headers differ. The local device then shows the
    /// header that the other one has, because a server compares its real bytes.
    var comparedDevices: (source: any BlockDevice, target: any BlockDevice) {
        let (source, target) = (sourceEnd.device, targetEnd.device)
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
