// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import LinuxIO
internal import SyncEngine
internal import Synchronization

/// Makes one device the exact replica of another, transferring only differences, or compares them.
///
/// Both are named as on the command line: a path, `UUID=`, `LABEL=`, `PARTUUID=`, `PARTLABEL=` or
/// `LVUUID=` and a value, or a URL of `http`, `https` or `ssh`. At least one is on this machine. The
/// source may be `-`, standard input, which must not be closed or read elsewhere until the run ends.
///
///     let replication = try Replication(from: "/dev/vg0/snapshot", to: "https://host/UUID=…")
///     let report = replication.run { print("\($0.done) of \($0.total)") }
///     guard report.isDone else { … }
///
/// Both devices are open, and the target is claimed, until the run ends or this object is released.
/// Calls block. The work runs in threads with all signals blocked.
public final class Replication: Sendable {
    /// What to do; the raw value is the word for it in messages.
    public enum Action: String, Sendable {
        /// The target is made equal to the source.
        case synchronize = "sync"
        /// The target is made equal to a new snapshot of the source, a logical volume.
        ///
        /// The run reads only the ranges that programs have changed since the last refresh of this
        /// target, which left a snapshot. If that snapshot is missing, or the target may no longer be its replica, a
        /// warning has the reason, and the run compares everything. If the run is done, the new
        /// snapshot stays for the next refresh, and the former one is removed.
        case refresh
        /// Nothing is written, but the safety gate checks the target.
        case dryRun = "dry-run"
        /// The two are compared and nothing is written; the target may be in use.
        case compare = "verify"

        /// Whether the target is written to.
        public var writes: Bool { self == .synchronize || self == .refresh }
    }

    public enum Event: Hashable, Sendable {
        /// One line; the work continues, but its result may not be as intended.
        case warning(String)
        /// One line that says what to do about the warning before it.
        case advice(String)
        /// One line with details.
        case note(String)
        /// One line about what the work waits for: a busy target before it starts, or a server that
        /// is unreachable. Another one follows when the server answers again.
        case waiting(String)
        /// Before a run began, the source's snapshot overflowed or could not be removed.
        case failure(ReplicationError)
    }

    /// Cancels and watches a replication, also before its devices are open.
    public struct Control: Sendable {
        let run: RunControl

        public init() { self.init(RunControl()) }

        init(_ run: RunControl) { self.run = run }

        /// Ends the run after the windows in progress, and flushes the target; another run
        /// completes the job.
        public func cancel() { run.cancel() }

        /// Does the same; `Report.wasStopped` tells the two apart.
        public func stop() { run.stop() }

        /// Whether either was called.
        public var isCancelled: Bool { run.isCancelled }

        /// Whether `stop` was called, and before `cancel`.
        public var isStopped: Bool { run.isStopped }

        public var progress: Progress { Progress(run.progress) }
    }

    public let control: Control
    /// `nil` once the run has begun.
    private let work: Mutex<(@Sendable () -> Report)?>

    /// Opens both devices; the target passes the safety gate, here or on its server.
    ///
    /// A run that reads a logical volume through a snapshot, or only its changes, first takes the
    /// snapshot and determines the changes.
    ///
    /// If it throws, nothing has been written. If it returns, a missing image or logical volume may
    /// have been created, and a server may have extended an image.
    ///
    /// - Parameters:
    ///   - control: its cancellation also ends the waits of this initialiser.
    ///   - events: called in any thread until the run ends or this object is released.
    public convenience init(
        _ action: Action = .synchronize, from source: String, to target: String,
        options: Options = Options(), control: Control = Control(),
        events: @escaping @Sendable (Event) -> Void = { _ in }
    ) throws(ReplicationError) {
        try self.init(
            action, try Operands(source, target), options: options, control: control, events)
    }

    package init(
        _ action: Action, _ operands: Operands, options: Options, control: Control,
        _ events: @escaping @Sendable (Event) -> Void
    ) throws(ReplicationError) {
        try options.check()
        try options.checkStream(action, operands)
        self.control = control
        let work: @Sendable () -> Report
        if options.readsVolume(action) {
            try options.checkVolume(action, operands.source)
            work = try VolumeJob(
                action: action, operands: operands, options: options, control: control.run,
                events: events
            ).open()
        } else {
            let pair = try OpenPair(
                action, operands, options: options, control: control.run, events)
            if let checkpoint = options.checkpoint, action.writes {
                let run = CheckpointedRun(pair, checkpoint)
                work = { run.run() }
            } else {
                work = { pair.run { _ in true } }
            }
        }
        self.work = Mutex(work)
    }

    /// Does the work once; the report contains the errors, because a failed run may have written.
    ///
    /// - Parameters:
    ///   - interval: between two calls of `progress`.
    ///   - progress: called in its own thread, but not after this returns.
    public func run(
        every interval: Duration = .milliseconds(200),
        progress: (@Sendable (Progress) -> Void)? = nil
    ) -> Report {
        guard let work = work.withLock({ $0.take() }) else {
            preconditionFailure("a replication runs once: make another")
        }
        guard let progress else { return work() }
        let ticker = Ticker(interval) { [control] in progress(control.progress) }
        let report = work()
        ticker.stop()
        return report
    }
}
