// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import BlockReplication
internal import DeviceProbe
internal import LinuxIO
internal import LogicalVolumes
internal import SyncEngine

/// One volume, or a snapshot of it, on its way to the target.
///
/// A base only ever saves work: where anything about it is in doubt, that is said and everything is
/// compared. Before the target is written to, what snapshots say of it is taken back; after it is
/// flushed, it is said of the one that was read. So a run that is killed anywhere leaves no snapshot
/// that says too much.
struct VolumeSession {
    let origin: LogicalVolume
    /// What is read: the origin, or a snapshot of it.
    let read: LogicalVolume
    let lvm: LVM
    let target: String
    let kind: RunPrinter.Kind
    let plan: VolumePlan
    let control: RunControl
    let console: Console

    /// What a run came to.
    struct Ending {
        var report: Replication.Report
        /// That the target is the replica of what was read; `nil` where it is not, or that cannot be
        /// told later.
        var record: ReplicaRecord?
        var failures: [CommandFailure] = []
        /// Names the target.
        var identity: String?
    }

    /// Opens both devices, does the work, and closes them.
    ///
    /// - Parameters:
    ///   - options: how.
    ///   - isSound: whether what was read was the source to the end; asked once, at the end.
    ///   - events: told what the user should know.
    /// - Returns: what it came to.
    /// - Throws: why nothing was done.
    func run(
        _ options: Replication.Options, whereSourceIs isSound: () -> Bool,
        _ events: @escaping @Sendable (Replication.Event) -> Void
    ) throws(CommandFailure) -> Ending {
        let replication: Replication
        do throws(ReplicationError) {
            replication = try Replication(
                kind.action, from: read.path, to: target, options: options, control: control,
                events)
        } catch {
            throw CommandFailure(error)
        }
        guard let wanted = plan.base else {
            return Ending(report: replication.run(changes: nil) { _ in isSound() })
        }
        let identity: String
        let trust: Trust?
        let number: Int
        let stamp = replication.sourceStamp()
        do throws(ReplicationError) {
            identity = try replication.targetIdentity()
            let base = try asReplicationError { () throws(IOError) -> LogicalVolume? in
                try findBase(wanted, for: identity)
            }
            number = (base?.replica(on: identity)?.number ?? 0) + 1
            trust = trusted(base, replication, identity)
            if kind.isSync {
                try asReplicationError { () throws(IOError) in
                    for volume in families {
                        try VolumeSnapshot.invalidateRecords(of: volume, for: identity, lvm)
                    }
                }
            }
        } catch {
            throw CommandFailure(error)
        }
        var record: ReplicaRecord?
        var failures: [CommandFailure] = []
        let report = replication.run(
            changes: trust?.changes.ranges, since: trust == nil ? nil : stamp
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

    /// The volumes that the snapshots in question are of: the source, and where it is a snapshot
    /// itself, its origin.
    private var families: [LogicalVolume] {
        guard let uuid = origin.originUUID, let name = origin.origin else { return [origin] }
        var family = origin
        family.uuid = uuid
        family.name = name
        return [origin, family]
    }

    private func findBase(
        _ wanted: VolumePlan.Base, for identity: String
    ) throws(IOError) -> LogicalVolume? {
        switch wanted {
        case .snapshot(let name): return try lvm.snapshot(name, of: origin)
        case .lastRun: return try VolumeSnapshot.bases(of: origin, for: identity, lvm).first
        }
    }

    // MARK: Before

    /// What is beyond doubt when the run begins.
    private struct Trust {
        /// Where the target may differ.
        var changes: ChangeMap
        /// The target's.
        var mark: String
    }

    /// Where the target may differ, if that is beyond doubt; what is in doubt is said.
    private func trusted(
        _ base: LogicalVolume?, _ replication: Replication, _ identity: String
    ) -> Trust? {
        guard let base else {
            console.note("\(origin.fullName): no earlier run for \(target): comparing everything")
            return nil
        }
        do throws(Doubt) {
            let record = try soundRecord(of: base, replication, identity)
            let changes: ChangeMap
            do throws(ChangeMapError) {
                changes = try read.changes(since: base) { control.isCancelled }
            } catch {
                throw Doubt("\(error)", advice: error.advice)
            }
            guard changes.size == replication.sourceFacts.size else {
                throw Doubt("\(read.fullName): its size has changed meanwhile")
            }
            try compare(replication, with: record, base, outside: changes)
            // All that took its time.
            try requireMark(of: record, replication) {
                "\(target): somebody may have written to it meanwhile"
            }
            console.note(
                "\(base.fullName): \(changes.byteCount) of \(changes.size) bytes have changed since"
            )
            return Trust(changes: changes, mark: record.mark)
        } catch {
            // Nothing more is compared then.
            if control.isCancelled { return nil }
            console.warning("\(error.reason): comparing everything")
            if let advice = error.advice { console.status("  \(advice)\n") }
            return nil
        }
    }

    /// Why everything is compared.
    private struct Doubt: Error {
        var reason: String
        var advice: String?

        init(_ reason: String, advice: String? = nil) {
            self.reason = reason
            self.advice = advice
        }
    }

    private func soundRecord(
        of base: LogicalVolume, _ replication: Replication, _ identity: String
    ) throws(Doubt) -> ReplicaRecord {
        guard let record = base.replica(on: identity) else {
            throw Doubt("\(base.fullName): it is not known whether \(target) is its replica")
        }
        guard read.isReadOnly || !read.isInUse else {
            throw Doubt(
                "\(read.fullName): it is in use, and may change meanwhile",
                advice: read.origin == nil
                    ? "--snapshot reads a snapshot of it."
                    : "lvchange --permission r \(read.fullName) sees to it that it does not.")
        }
        // What others have only put into the page cache is to be seen as well.
        if kind.isSync {
            do throws(ReplicationError) { try replication.flushTarget() } catch {
                throw Doubt(error.message)
            }
        }
        try requireMark(of: record, replication) {
            "\(target): somebody may have written to it since it became the replica of "
                + base.fullName
        }
        return record
    }

    /// Makes sure that nobody has written to the target since a record was made.
    private func requireMark(
        of record: ReplicaRecord, _ replication: Replication, orElse reason: () -> String
    ) throws(Doubt) {
        let mark: String?
        do throws(ReplicationError) { mark = try replication.targetMark(asFound: true) } catch {
            throw Doubt(error.message)
        }
        guard let mark else {
            throw Doubt("\(target): nothing tells whether somebody has written to it")
        }
        guard mark == record.mark else { throw Doubt(reason()) }
    }

    /// Compares samples: that the target still is what it was, and that what is said not to have
    /// changed has not.
    private func compare(
        _ replication: Replication, with record: ReplicaRecord, _ base: LogicalVolume,
        outside changes: ChangeMap
    ) throws(Doubt) {
        do throws(ReplicationError) {
            let root = try replication.root(of: .target, seed: record.seed, size: base.size)
            guard root == record.root else {
                throw ReplicationError(
                    .device, "\(target): it is not the replica of \(base.fullName)")
            }
            let differences = try replication.sampleDifferences(
                size: min(base.size, changes.size), oneIn: 384
            ) { place in
                !changes.overlaps(ByteRange(place.lowerBound, to: place.upperBound))
            }
            if let first = differences.first {
                throw ReplicationError(
                    .device,
                    "\(target): it differs at \(first.lowerBound), where nothing has changed since "
                        + base.fullName)
            }
        } catch {
            throw Doubt(error.message)
        }
    }

    // MARK: After

    /// Compares places at random, now that all is on the medium.
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

    private func mark(of replication: Replication) throws(CommandFailure) -> String? {
        do throws(ReplicationError) { return try replication.targetMark() } catch {
            throw CommandFailure(error)
        }
    }

    /// Whether nobody else has written to the target while it was not looked at.
    ///
    /// While the run itself writes that cannot be told: the kernel may count one write twice, such as
    /// one that the device mapper had to begin again.
    ///
    /// - Parameters:
    ///   - replication: the run, both sides open.
    ///   - trust: what was not compared, since it was known to be equal; `nil` where all was.
    ///   - tally: what the run has written.
    ///   - mark: the target's, at the end.
    /// - Returns: `false` where it cannot be told, which was said: then there is no record.
    /// - Throws: where the replica is in doubt.
    private func isAlone(
        _ replication: Replication, since trust: Trust?, _ tally: Tally, _ mark: String?
    ) throws(CommandFailure) -> Bool {
        if replication.hasLostTarget {
            let reason =
                "\(target): the session was lost meanwhile, and others may have written to it"
            guard trust == nil else { throw doubtful(reason) }
            console.warning("\(reason): the next run compares everything")
            return false
        }
        guard let trust, tally.written == 0, tally.zeroed == 0, !replication.isTargetResized,
            mark != trust.mark
        else { return true }
        throw doubtful("\(target): somebody has written to it meanwhile")
    }

    private func doubtful(_ reason: String) -> CommandFailure {
        CommandFailure(.different, reason, advice: "Run it again: everything is compared then.")
    }

    private func makeRecord(
        _ replication: Replication, _ identity: String, _ mark: String?, number: Int
    ) throws(CommandFailure) -> ReplicaRecord? {
        // What is no snapshot goes on to change.
        guard read.origin != nil else { return nil }
        guard let mark else {
            console.warning(
                "\(target): nothing tells later whether somebody has written to it: the next run "
                    + "compares everything")
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
        // The samples took their time.
        guard try self.mark(of: replication) == mark else {
            throw doubtful("\(target): somebody has written to it meanwhile")
        }
        return ReplicaRecord(
            of: read, target: identity, mark: mark, seed: seed, root: root, number: number)
    }

    /// When the snapshot that was read is closed: leaves the records, and removes the bases that are
    /// none any more.
    ///
    /// One that somebody has open stays until the next run.
    ///
    /// - Returns: what was in the way.
    func settle(_ result: Ending) -> [CommandFailure] {
        guard kind.isSync, result.report.isDone, let identity = result.identity else { return [] }
        // A signal that comes now comes too late.
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
