// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import BlockReplication
internal import DeviceProbe
internal import LinuxIO
internal import LogicalVolumes
internal import SyncEngine
internal import WireProtocol

/// One run that copies a volume or a snapshot of it to the target.
///
/// A base only saves work. If anything about it is in doubt, the run warns and falls back to a full
/// comparison. Right before the first write to the target, the run removes the target's records. It
/// adds a new record after the flush. So a run that is killed at any point leaves no false record,
/// and a refused run leaves the base as it was.
struct RefreshRun {
    let origin: LogicalVolume
    /// The origin, or a snapshot of it.
    let read: LogicalVolume
    let lvm: LVM
    let targetLocation: Location
    let kind: RunCommand.Kind
    let plan: VolumePlan
    let control: RunControl
    let console: Console
    var target: String { targetLocation.description }

    struct Ending {
        var report: Replication.Report
        /// The record that the target is the replica of `read`; `nil` if it is not, or if a later
        /// run could not check it.
        var record: ReplicaRecord?
        var failures: [CommandFailure] = []
        var identity: String?
    }

    /// Opens both devices, runs, and closes them.
    ///
    /// - Parameter isSound: called once at the end; returns whether the reads came from a valid
    ///   snapshot.
    /// - Throws: if nothing was done.
    func run(
        _ options: Replication.Options, whereSourceIs isSound: () -> Bool,
        _ events: @escaping @Sendable (Replication.Event) -> Void
    ) throws(CommandFailure) -> Ending {
        try requireNamedBase()
        let replication: Replication
        do throws(ReplicationError) {
            replication = try Replication(
                kind.action, Operands(.success(.local(.path(read.path))), .success(targetLocation)),
                options: options, control: control, events)
        } catch {
            throw CommandFailure(error)
        }
        guard let wanted = plan.base else {
            return Ending(report: replication.run(changes: nil) { _ in isSound() })
        }
        let identity: String
        let trust: VerifiedBase?
        let number: Int
        let stamp = replication.sourceChangeCounter()
        do throws(ReplicationError) {
            identity = try replication.targetIdentity()
            let base = try asReplicationError { () throws(IOError) -> LogicalVolume? in
                try findBase(wanted, for: identity)
            }
            number = (base?.replica(on: identity)?.number ?? 0) + 1
            trust = verified(base, replication, identity)
        } catch {
            throw CommandFailure(error)
        }
        var record: ReplicaRecord?
        var failures: [CommandFailure] = []
        let report = replication.run(
            changes: trust?.changes.ranges, since: trust == nil ? nil : stamp,
            begin: { invalidateRecords(for: identity) }
        ) { result in
            guard kind.isSync, result.failure == nil, result.flushError == nil,
                !result.wasInterrupted, result.tally.writeErrorCount == 0,
                result.tally.unreadable == 0
            else { return isSound() }
            do throws(CommandFailure) {
                let mark = try self.mark(of: replication)
                try verifySample(replication)
                if try isAlone(replication, since: trust, result.tally, mark) {
                    record = try makeRecord(replication, identity, mark, number: number)
                }
            } catch {
                failures.append(error)
            }
            return isSound() && failures.isEmpty
        }
        if !report.isDone || report.sourceChanged { record = nil }
        return Ending(report: report, record: record, failures: failures, identity: identity)
    }

    /// Removes the records of the target, which is about to be written to, from all snapshots.
    private func invalidateRecords(for identity: String) -> IOError? {
        guard kind.isSync else { return nil }
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

    /// Throws if the snapshot of `--since` is missing, before the gate creates a target.
    private func requireNamedBase() throws(CommandFailure) {
        guard case .snapshot(let name)? = plan.base else { return }
        do throws(IOError) { _ = try lvm.snapshot(name, of: origin) } catch {
            throw CommandFailure(error)
        }
    }

    private func findBase(
        _ wanted: VolumePlan.Base, for identity: String
    ) throws(IOError) -> LogicalVolume? {
        switch wanted {
        case .snapshot(let name): return try lvm.snapshot(name, of: origin)
        case .lastRun: return try VolumeSnapshot.bases(of: origin, for: identity, lvm).first
        }
    }

    // MARK: After the flush

    /// Compares random samples after the flush.
    private func verifySample(_ replication: Replication) throws(CommandFailure) {
        let differences: [Range<Int>]
        do throws(ReplicationError) {
            differences = try replication.sampleDifferences(size: read.size, oneIn: 512)
        } catch {
            throw CommandFailure(error)
        }
        guard let first = differences.first else { return }
        throw CommandFailure(
            .different, "\(target): verify: at \(first.lowerBound) it reads back differently",
            advice: "Run it again: everything is compared then.")
    }

    private func mark(of replication: Replication) throws(CommandFailure) -> TargetMark? {
        do throws(ReplicationError) { return try replication.targetMark() } catch {
            throw CommandFailure(error)
        }
    }

    /// Returns whether no other program wrote to the target while the run did not watch it.
    ///
    /// After writes of the run itself the counter proves nothing. The kernel may count one write
    /// twice, such as a write that the device mapper had to restart.
    ///
    /// - Parameters:
    ///   - trust: the base that limited the comparison; `nil` after a full comparison.
    ///   - mark: the target's change counter at the end.
    /// - Returns: `false`, with a warning, if it cannot be determined. No record is made then.
    /// - Throws: if the replica is in doubt.
    private func isAlone(
        _ replication: Replication, since trust: VerifiedBase?, _ tally: Tally, _ mark: TargetMark?
    ) throws(CommandFailure) -> Bool {
        if replication.hasLostTarget {
            let reason =
                "\(target): the session was lost during the run, and other programs may have "
                + "written to it"
            guard trust == nil else { throw doubtful(reason) }
            console.warning("the next run falls back to a full comparison: \(reason)")
            return false
        }
        guard let trust, tally.written == 0, tally.zeroed == 0, !replication.isTargetResized,
            mark?.isUnchanged(since: trust.mark) != true
        else { return true }
        throw doubtful("\(target): another program has written to it during the run")
    }

    private func doubtful(_ reason: String) -> CommandFailure {
        CommandFailure(.different, reason, advice: "Run it again: everything is compared then.")
    }

    private func makeRecord(
        _ replication: Replication, _ identity: String, _ mark: TargetMark?, number: Int
    ) throws(CommandFailure) -> ReplicaRecord? {
        // A source that is no snapshot changes further.
        guard read.origin != nil else { return nil }
        guard let mark else {
            let reason = FallbackReason.missingCounter(of: target, replication.reasonForNoMark)
            console.warning("each run falls back to a full comparison: \(reason)")
            return nil
        }
        var generator = SystemRandomNumberGenerator()
        let seed: UInt64 = generator.next()
        let root: String
        do throws(ReplicationError) {
            root = try replication.root(of: .source, seed: seed, size: read.size)
        } catch {
            throw CommandFailure(error)
        }
        // The samples took time.
        guard try self.mark(of: replication)?.isUnchanged(since: mark.text) == true else {
            throw doubtful("\(target): another program has written to it during the run")
        }
        return ReplicaRecord(
            of: read, target: identity, mark: mark.text, seed: seed, root: root, number: number)
    }

    /// Adds the record, and removes the former bases, after the snapshot was closed.
    ///
    /// A base that a program has open stays until the next run.
    func settle(_ result: Ending) -> [CommandFailure] {
        guard kind.isSync, result.report.isDone, let identity = result.identity else { return [] }
        // The run is complete, so a signal no longer cancels it.
        let lvm = lvm.uninterrupted
        do throws(IOError) {
            if !plan.takesSnapshot, let record = result.record {
                try VolumeSnapshot.add(record, to: read, lvm)
            }
            guard plan.leavesBase else { return [] }
            for failure in try VolumeSnapshot.removeBases(
                of: origin, for: identity, besides: read.uuid, lvm)
            {
                console.warning("\(failure)")
            }
            return []
        } catch {
            return [CommandFailure(error)]
        }
    }
}

private func asReplicationError<Result>(
    _ body: () throws(IOError) -> Result
) throws(ReplicationError) -> Result {
    do throws(IOError) { return try body() } catch { throw ReplicationError(error) }
}
