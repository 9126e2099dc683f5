// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import BlockReplication
internal import DeviceProbe
internal import Digests
internal import LinuxIO
internal import LogicalVolumes
internal import SyncEngine
internal import WireProtocol

/// A run whose source is a logical volume, through a snapshot, or limited to the changes since one.
struct SnapshotRun {
    private let plan: VolumePlan
    private let kind: RunCommand.Kind
    private let operands: Operands
    private var source: String { operands.source.description }
    private var target: String { operands.target.description }
    private let options: Replication.Options
    private let control: RunControl
    private let console: Console
    private let events: @Sendable (Replication.Event) -> Void

    init(
        _ plan: VolumePlan, _ kind: RunCommand.Kind, _ operands: Operands,
        _ options: Replication.Options, _ control: RunControl, _ console: Console,
        _ events: @escaping @Sendable (Replication.Event) -> Void
    ) {
        self.plan = plan
        self.kind = kind
        self.operands = operands
        self.options = options
        self.control = control
        self.console = console
        self.events = events
    }

    /// Runs; afterwards the snapshot is removed, or is the base of the next run.
    func run() throws(CommandFailure) -> RunCommand.Outcome {
        var hasFailed = false
        do throws(CommandFailure) { return try runWhenFree(&hasFailed) } catch {
            // An error that a signal caused counts as an interruption.
            let isEnded = error.status == .deviceError || BusyWait.isBusy(error.cause)
            guard control.isCancelled, !hasFailed, isEnded else { throw error }
            throw CommandFailure(
                .interrupted, "\(target): \(kind.rawValue): interrupted, nothing was written")
        }
    }

    /// Runs, and waits for a busy target if the user wants that; no snapshot is kept during the
    /// wait.
    private func runWhenFree(
        _ hasFailed: inout Bool
    ) throws(CommandFailure) -> RunCommand.Outcome {
        var wait = BusyWait(options.wait, control, events)
        while true {
            var failure: CommandFailure
            do throws(CommandFailure) { return try runOnVolume(&hasFailed) } catch {
                failure = error
            }
            repeat {
                guard wait.pauses(after: failure.message, failure.cause) else { throw failure }
            } while isBusy
        }
    }

    /// Whether the gate would refuse the target because it is in use.
    private var isBusy: Bool {
        do throws(ReplicationError) {
            _ = try Replication(
                .dryRun, operands, options: optionsOfRun, control: control, { _ in })
            return false
        } catch {
            return BusyWait.isBusy(error.cause)
        }
    }

    /// Options without a wait, because this type waits itself; a snapshot of the source must not
    /// age during a wait.
    private var optionsOfRun: Replication.Options {
        var options = options
        if options.wait != nil { options.wait = .zero }
        return options
    }

    /// Runs once; sets `hasFailed` if something other than a signal failed.
    private func runOnVolume(
        _ hasFailed: inout Bool
    ) throws(CommandFailure) -> RunCommand.Outcome {
        let (lvm, volume) = try findVolume()
        guard !volume.isPart, !volume.isThinPool else {
            throw CommandFailure(.refused, "\(source): read: it is a part of LVM itself")
        }
        guard volume.isActive || (plan.takesSnapshot && volume.isThin) else {
            throw CommandFailure(
                IOError(
                    volume.fullName, "read", reason: "it is not active",
                    advice: "Activate it first: lvchange --activate y \(volume.fullName)"))
        }
        try refuseItself(volume)
        let lock = try lockedJob(of: volume)
        defer { withExtendedLifetime(lock) {} }
        var snapshot: SnapshotSource?
        do throws(IOError) {
            try removeLeftovers(of: volume, lvm)
            if plan.takesSnapshot {
                snapshot = try SnapshotSource(
                    of: volume, size: plan.snapshotSize, lvm, control, console)
            }
        } catch {
            throw CommandFailure(error)
        }
        let session = RefreshRun(
            origin: volume, read: snapshot?.volume ?? volume, lvm: lvm,
            targetLocation: operands.target, kind: kind, plan: plan, control: control,
            console: console)
        var result: RefreshRun.Ending
        do throws(CommandFailure) {
            result = try session.run(
                optionsOfRun, whereSourceIs: { snapshot?.isSound() ?? true }, events)
        } catch {
            for failure in snapshot?.finish() ?? [] {
                hasFailed = true
                console.error(failure.message, advice: failure.advice)
            }
            throw error
        }
        let kept = plan.leavesBase ? result.record : nil
        result.failures += snapshot?.finish(keptAs: kept) ?? []
        if result.failures.isEmpty { result.failures += session.settle(result) }
        return RunCommand.Outcome(report: result.report, failures: result.failures)
    }

    /// Removes the snapshots that killed runs left; open ones stay for the next run.
    private func removeLeftovers(of volume: LogicalVolume, _ lvm: LVM) throws(IOError) {
        let (removed, failures) = try VolumeSnapshot.removeLeftovers(of: volume, lvm)
        for name in removed { console.note("\(name): removed: a run that was killed has left it") }
        for failure in failures { console.warning("\(failure)") }
        guard let pool = volume.pool, volume.isThin else { return }
        // The owner of a held metadata snapshot may be unknown. A later change map reports that.
        if (try? ThinPool(group: volume.group, pool: pool).releaseLeftover()) == true {
            console.note("\(pool): released: a run that was killed has left its metadata snapshot")
        }
    }

    /// Finds the source by its name, a selector, or a path.
    private func findVolume() throws(CommandFailure) -> (LVM, LogicalVolume) {
        let path: String
        do throws(ProbeError) { path = try resolve(operands.source.local ?? .path(source)) } catch {
            throw CommandFailure(error)
        }
        do throws(IOError) {
            let identity = volumeIdentity(at: path)
            // An inactive volume has no device file.
            guard identity != nil || !FileStatus.exists(path) else {
                throw IOError(source, "find volume", reason: "it is no logical volume")
            }
            let lvm = try LVM(isCancelled: { [control] in control.isCancelled })
            guard let identity else { return (lvm, try lvm.volume(path)) }
            return (lvm, try lvm.volume(identity, as: source))
        } catch {
            throw CommandFailure(error)
        }
    }

    /// Refuses a target that is the volume, or is on it; the gate would compare only with the
    /// snapshot.
    private func refuseItself(_ volume: LogicalVolume) throws(CommandFailure) {
        guard let selector = operands.target.local else { return }
        do throws(ProbeError) {
            try SafetyGate.refuse(selector, on: volume.identity, called: source)
        } catch {
            throw CommandFailure(error)
        }
    }

    /// Locks the job against another run, as long as the result lives.
    private func lockedJob(of volume: LogicalVolume) throws(CommandFailure) -> RunLock? {
        guard plan.leavesBase else { return nil }
        let lock: RunLock?
        do throws(IOError) {
            lock = try RunLock("\(kind.rawValue)-\(volume.uuid)-\(try fileName(of: target))")
        } catch {
            throw CommandFailure(error)
        }
        guard let lock else {
            var failure = CommandFailure(
                .refused,
                "\(volume.fullName): \(kind.rawValue): another run to \(target) is in progress",
                advice: "Wait until it has ended, or say --wait DURATION.")
            failure.cause = Refusal.Cause.locked.rawValue
            throw failure
        }
        return lock
    }

    /// Returns a file name for the target; a file name has no slashes and at most 255 bytes.
    private func fileName(of target: String) throws(IOError) -> String {
        hexadecimal(try sha256(of: Array(target.utf8)).prefix(16))
    }
}
