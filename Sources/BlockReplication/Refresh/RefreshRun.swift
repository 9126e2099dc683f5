// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import DeviceProbe
internal import LinuxIO
internal import LogicalVolumes
internal import SyncEngine
internal import Synchronization
internal import WireProtocol

/// One run that copies a volume or a snapshot of it to the target.
///
/// A base only saves work. If anything about it is in doubt, the run warns and falls back to a full
/// comparison. Right before the first write to the target, the run removes the target's records. It
/// adds a new record after the flush. So a run that is killed at any point leaves no false record,
/// and a refused run leaves the base as it was.
final class RefreshRun: Sendable {
    let job: VolumeJob
    let origin: LogicalVolume
    private let lvm: LVM
    private let snapshot: SnapshotSource?
    private let lock: RunLock?
    /// Both devices, and the base; `nil` once the run has begun.
    private let opened = Mutex<(pair: OpenPair, base: Base?)?>(nil)

    /// What a run with a base knows before it compares.
    private struct Base {
        /// The target's identity.
        let identity: String
        /// Where the target may differ, and its change counter; `nil` for a full comparison.
        let verified: (changes: ChangeMap, counter: String)?
        /// Why there is a full comparison; `nil` if there is none.
        let fallback: FallbackReason?
        /// The number of the record that the run will make.
        let number: Int
        /// The source's change counter from before the changes were determined.
        let stamp: ChangeCounter?
    }

    /// The origin, or a snapshot of it.
    var read: LogicalVolume { snapshot?.volume ?? origin }

    /// Opens both devices, and finds out what may be left unread.
    ///
    /// - Parameter snapshot: its owner removes it if this throws; otherwise this object does.
    init(
        _ job: VolumeJob, of origin: LogicalVolume, through snapshot: SnapshotSource?, _ lvm: LVM,
        _ lock: RunLock?
    ) throws(ReplicationError) {
        self.job = job
        self.origin = origin
        self.snapshot = snapshot
        self.lvm = lvm
        self.lock = lock
        // A missing snapshot must not lead to a new target.
        if job.options.since != nil { _ = try findBase(for: "") }
        var operands = job.operands
        operands.source = .local(.path(read.path))
        let pair = try OpenPair(
            job.action, operands, options: job.pairOptions, control: job.control, job.events)
        let base = try base(of: pair)
        opened.withLock { $0 = (pair, base) }
    }

    /// Ends a run that has not begun.
    deinit {
        let wasOpen = opened.withLock { opened in
            defer { opened = nil }
            return opened != nil
        }
        guard wasOpen else { return }
        for failure in snapshot?.finish() ?? [] { job.events(.failure(failure)) }
    }

    private func base(of pair: OpenPair) throws(ReplicationError) -> Base? {
        guard job.action == .refresh || job.options.since != nil else { return nil }
        let stamp = pair.sourceEnd.device.changeCounter()
        let identity = try pair.targetIdentity()
        let base = try findBase(for: identity)
        let (verified, fallback) = verified(base, pair, identity)
        return Base(
            identity: identity, verified: verified, fallback: fallback,
            number: (base?.replica(on: identity)?.number ?? 0) + 1, stamp: stamp)
    }

    private func findBase(for identity: String) throws(ReplicationError) -> LogicalVolume? {
        do throws(IOError) {
            guard let name = job.options.since else {
                return try VolumeSnapshot.bases(of: origin, for: identity, lvm).first
            }
            return try lvm.snapshot(name, of: origin)
        } catch {
            throw ReplicationError(error)
        }
    }

    /// Runs once; afterwards the snapshot is removed, or is the base of the next run.
    func run() -> Replication.Report {
        // Both devices are closed afterwards: LVM removes no snapshot that is open.
        var (report, record, identity) = replicate()
        report.failures += snapshot?.finish(keptAs: job.action == .refresh ? record : nil) ?? []
        if let identity, report.failures.isEmpty {
            report.failures += settle(report, record, identity)
        }
        return report
    }

    /// Runs, and closes both devices.
    ///
    /// - Returns: also the record that the target is the replica of `read`, `nil` if it is not, or
    ///   if a later run could not check it; and the target's identity, `nil` without a base.
    private func replicate() -> (Replication.Report, ReplicaRecord?, identity: String?) {
        guard let (pair, base) = opened.withLock({ $0.take() }) else {
            preconditionFailure("it runs once")
        }
        guard let base else { return (pair.run { _ in isSound }, nil, nil) }
        var record: ReplicaRecord?
        var failures: [ReplicationError] = []
        var report = pair.run(
            changes: base.verified?.changes.ranges, since: base.verified == nil ? nil : base.stamp,
            begin: { invalidateRecords(for: base.identity) }
        ) { result in
            guard job.action.writes, result.failure == nil, result.flushError == nil,
                !result.wasInterrupted, result.tally.writeErrorCount == 0,
                result.tally.unreadable == 0
            else { return isSound }
            do throws(ReplicationError) {
                let mark = try pair.targetMark()
                try verifySample(pair)
                if try isAlone(pair, since: base.verified?.counter, result.tally, mark) {
                    record = try makeRecord(pair, base, mark)
                }
            } catch {
                failures.append(error)
            }
            return isSound && failures.isEmpty
        }
        report.fullComparison =
            base.fallback?.word ?? (report.engine.restarts > 0 ? "session-lost" : nil)
        if !report.isDone || report.sourceChanged { record = nil }
        report.failures = failures
        return (report, record, base.identity)
    }

    /// Whether the reads came from a valid snapshot.
    private var isSound: Bool { snapshot?.isSound() ?? true }

    /// Removes the records of the target, which is about to be written to, from all snapshots.
    private func invalidateRecords(for identity: String) -> IOError? {
        guard job.action.writes else { return nil }
        do throws(IOError) {
            for volume in families {
                try VolumeSnapshot.invalidateRecords(of: volume, for: identity, lvm)
            }
            return nil
        } catch {
            return error
        }
    }

    /// The volumes whose snapshots may have records: the source, and its origin if the source is a
    /// snapshot.
    private var families: [LogicalVolume] {
        guard let uuid = origin.originUUID, let name = origin.origin else { return [origin] }
        var family = origin
        family.uuid = uuid
        family.name = name
        return [origin, family]
    }

    // MARK: After the flush

    /// Compares random samples after the flush.
    private func verifySample(_ pair: OpenPair) throws(ReplicationError) {
        guard let first = try pair.sampleDifferences(size: read.size, oneIn: 512).first else {
            return
        }
        throw ReplicationError(
            .different, "\(job.target): verify: at \(first.lowerBound) it reads back differently",
            advice: "Run it again: everything is compared then.")
    }

    /// Returns whether no other program wrote to the target while the run did not watch it.
    ///
    /// After writes of the run itself the counter proves nothing. The kernel may count one write
    /// twice, such as a write that the device mapper had to restart.
    ///
    /// - Parameters:
    ///   - counter: the target's change counter at the start, in text; `nil` after a full comparison.
    ///   - mark: its change counter at the end.
    /// - Returns: `false`, with a warning, if it cannot be determined. No record is made then.
    /// - Throws: if the replica is in doubt.
    private func isAlone(
        _ pair: OpenPair, since counter: String?, _ tally: Tally, _ mark: TargetMark?
    ) throws(ReplicationError) -> Bool {
        if pair.hasLostTarget {
            let reason =
                "\(job.target): the session was lost during the run, and other programs may have "
                + "written to it"
            guard counter == nil else { throw doubtful(reason) }
            job.events(.warning("the next run falls back to a full comparison: \(reason)"))
            return false
        }
        guard let counter, tally.written == 0, tally.zeroed == 0, !pair.isTargetResized,
            mark?.isUnchanged(since: counter) != true
        else { return true }
        throw doubtful("\(job.target): another program has written to it during the run")
    }

    private func doubtful(_ reason: String) -> ReplicationError {
        ReplicationError(.different, reason, advice: "Run it again: everything is compared then.")
    }

    private func makeRecord(
        _ pair: OpenPair, _ base: Base, _ mark: TargetMark?
    ) throws(ReplicationError) -> ReplicaRecord? {
        // A source that is no snapshot changes further.
        guard read.origin != nil else { return nil }
        guard let mark else {
            let reason = FallbackReason.missingCounter(of: job.target, pair.reasonForNoMark)
            job.events(.warning("each run falls back to a full comparison: \(reason)"))
            return nil
        }
        var generator = SystemRandomNumberGenerator()
        let seed: UInt64 = generator.next()
        let root = try pair.root(of: .source, seed: seed, size: read.size)
        // The samples took time.
        guard try pair.targetMark()?.isUnchanged(since: mark.text) == true else {
            throw doubtful("\(job.target): another program has written to it during the run")
        }
        return ReplicaRecord(
            of: read, target: base.identity, mark: mark.text, seed: seed, root: root,
            number: base.number)
    }

    /// Adds the record, and removes the former bases, after the snapshot was closed.
    ///
    /// A base that a program has open stays until the next run.
    private func settle(
        _ report: Replication.Report, _ record: ReplicaRecord?, _ identity: String
    ) -> [ReplicationError] {
        guard job.action.writes, report.isDone else { return [] }
        // The run is complete, so a signal no longer cancels it.
        let lvm = lvm.uninterrupted
        do throws(IOError) {
            if snapshot == nil, let record { try VolumeSnapshot.add(record, to: read, lvm) }
            guard job.action == .refresh else { return [] }
            for failure in try VolumeSnapshot.removeBases(
                of: origin, for: identity, besides: read.uuid, lvm)
            {
                job.events(.warning("\(failure)"))
            }
            return []
        } catch {
            return [ReplicationError(error)]
        }
    }
}
