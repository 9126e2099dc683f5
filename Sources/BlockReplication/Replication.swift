// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockClient
package import BlockDevices
package import DeviceProbe
internal import Glibc
internal import LinuxIO
package import SyncEngine
internal import Synchronization

/// Makes one device the exact replica of another, moving only what differs; or compares the two.
///
/// Each of the two is named as on the command line: a path, `UUID=`, `LABEL=`, `PARTUUID=`,
/// `PARTLABEL=` or `LVUUID=` and a value, or a URL of `http`, `https` or `ssh`; one of them at least is
/// on this machine.
///
///     let replication = try Replication(from: "/dev/vg0/snapshot", to: "https://host/UUID=…")
///     let report = replication.run { print("\($0.done) of \($0.total)") }
///     guard report.isDone else { … }
///
/// Both devices are open, and the target is claimed, for as long as this object lives; on a server,
/// until the run has ended. Calls block; the work is that of threads of its own, in which all signals are
/// blocked.
public final class Replication: Sendable {
    /// What is to be done.
    public enum Action: Hashable, Sendable {
        /// The target is made equal to the source.
        case synchronize
        /// Nothing is written; the target is judged as if it were.
        case dryRun
        /// The two are compared and nothing is written; the target may be in use.
        case compare
    }

    /// Something that the user should know before or while the work is done.
    public enum Event: Hashable, Sendable {
        /// One line: the work goes on, and may not come to what was meant.
        case warning(String)
        /// One line: for those who want to know more.
        case note(String)
    }

    public let action: Action
    public let source: String
    public let target: String
    public let options: Options

    let events: @Sendable (Event) -> Void
    /// Watched and cancelled through this.
    package let control: RunControl
    let sourceEnd: SourceEndpoint
    let targetEnd: TargetEndpoint
    let engineOptions: SyncOptions
    private let openSeconds: Double
    private let hasBegun = Atomic(false)

    /// Opens both devices; the target goes through the safety gate, here or on its server.
    ///
    /// Nothing has been written when this throws, and nothing but an image that was not there has
    /// been created when it returns.
    ///
    /// - Parameters:
    ///   - action: what is to be done.
    ///   - source: what is read.
    ///   - target: what is made equal to it, or compared with it.
    ///   - options: how.
    ///   - events: told what the user should know, in any thread, until the run has ended.
    /// - Throws: why it cannot be done.
    public convenience init(
        _ action: Action = .synchronize, from source: String, to target: String,
        options: Options = Options(), events: @escaping @Sendable (Event) -> Void = { _ in }
    ) throws(ReplicationError) {
        try self.init(
            action, from: source, to: target, options: options, control: RunControl(), events)
    }

    /// The same, under a control that is there before the devices are open.
    package init(
        _ action: Action, from source: String, to target: String, options: Options,
        control: RunControl, _ events: @escaping @Sendable (Event) -> Void
    ) throws(ReplicationError) {
        let clock = ContinuousClock()
        let start = clock.now
        try options.check(source: source, target: target)
        let endpoints = try Endpoints(options, isCancelled: { control.isCancelled }, events)
        var sourceEnd: SourceEndpoint
        let targetEnd: TargetEndpoint
        if action == .compare {
            (sourceEnd, targetEnd) = try endpoints.pair(source, target)
        } else {
            sourceEnd = try endpoints.source(source)
            do throws(ReplicationError) {
                targetEnd = try endpoints.target(
                    target, for: &sourceEnd, policy: options.policy(isDryRun: action == .dryRun))
            } catch {
                sourceEnd.remote?.release(isComplete: false)
                throw error
            }
        }
        do throws(ReplicationError) {
            engineOptions = try options.forEngine(action, sourceEnd, targetEnd, events)
        } catch {
            sourceEnd.remote?.release(isComplete: false)
            targetEnd.remote?.release(isComplete: false)
            throw error
        }
        self.action = action
        self.source = source
        self.target = target
        self.options = options
        self.events = events
        self.control = control
        self.sourceEnd = sourceEnd
        self.targetEnd = targetEnd
        openSeconds = (clock.now - start) / .seconds(1)
    }

    deinit { release(isDone: false) }

    /// Ends the run when the windows in work are finished, the target flushed; a second run
    /// finishes the job.
    public func cancel() { control.cancel() }

    public var isCancelled: Bool { control.isCancelled }

    /// What the source was like when it was opened.
    package var sourceFacts: SourceFacts { sourceEnd.facts }

    /// How far the run is.
    public var progress: Progress { Progress(control.progress) }

    /// Does the work, once; what fails is told in the report, since a run that failed may have
    /// written.
    ///
    /// - Parameters:
    ///   - interval: between two calls of `progress`.
    ///   - progress: told how far it is, in a thread of its own; not any more when this returns.
    /// - Returns: what was done.
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

    /// Does the work, once.
    ///
    /// - Parameters:
    ///   - changes: where the two may differ, in bytes: ascending, apart from each other; `nil` for
    ///     everywhere. All else is neither read nor written.
    ///   - stamp: of the source, from before `changes` were asked for: what is written after that
    ///     may not be among them.
    ///   - end: called when the target is flushed, and is still open; returns whether the run counts,
    ///     which one that is not done never does: else older snapshots of the target stay.
    /// - Returns: what was done.
    package func run(
        changes: [ByteRange]?, since stamp: ContentStamp? = nil, end: (SyncReport) -> Bool
    ) -> Report {
        precondition(!hasBegun.exchange(true, ordering: .relaxed), "a replication runs once")
        return perform(changes, since: stamp, end)
    }

    /// Changes when somebody writes to the source.
    package func sourceStamp() -> ContentStamp? { sourceEnd.device.contentStamp() }

    private func perform(
        _ changes: [ByteRange]? = nil, since stamp: ContentStamp? = nil,
        _ end: (SyncReport) -> Bool = { _ in true }
    ) -> Report {
        let (source, target) = (sourceEnd.device, targetEnd.device)
        var engineOptions = engineOptions
        engineOptions.changes = changes
        engineOptions.sourceStamp = stamp
        let result =
            action == .compare
            ? SyncEngine.compare(
                source: source, target: target, options: engineOptions, control: control)
            : SyncEngine.synchronize(
                source: source, target: target, options: engineOptions, control: control)
        let counts = end(result)
        var report = Report(
            result, action, sourceEnd, targetEnd, sizePolicy: options.sizePolicy,
            openSeconds: openSeconds)
        report.closingWarnings = release(isDone: report.isDone && counts)
        if action == .synchronize { refreshCaches(result) }
        return report
    }

    /// - Returns: what is to be said about it.
    @discardableResult private func release(isDone: Bool) -> [String] {
        sourceEnd.remote?.release(isComplete: isDone)
        if let remote = targetEnd.remote {
            return remote.release(isComplete: isDone).map { "\(remote.name): \($0)" }
        }
        guard isDone, let volume = targetEnd.device as? VolumeTarget else { return [] }
        return volume.finish()
    }

    /// What the kernel knows of the target beside its bytes.
    private func refreshCaches(_ result: SyncReport) {
        for relative in targetEnd.relatives {
            BlockSpecialFile.writeBackCache(of: relative, dropping: true)
        }
        guard let device = targetEnd.device as? BlockSpecialFile, result.tally.extents > 0 else {
            return
        }
        // The kernel still has the partitions of what was there before.
        if device.rereadPartitions() {
            events(.note("\(device.name): partition table read again"))
        }
    }
}
