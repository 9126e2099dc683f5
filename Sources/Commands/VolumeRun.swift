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

/// A run whose source is a logical volume: through a snapshot of it, or of what has changed since
/// one.
struct VolumeRun {
    private let plan: VolumePlan
    private let kind: RunPrinter.Kind
    private let source: String
    private let target: String
    private let options: Replication.Options
    private let control: RunControl
    private let console: Console
    private let events: @Sendable (Replication.Event) -> Void

    init(
        _ plan: VolumePlan, _ kind: RunPrinter.Kind, source: String, target: String,
        _ options: Replication.Options, _ control: RunControl, _ console: Console,
        _ events: @escaping @Sendable (Replication.Event) -> Void
    ) {
        self.plan = plan
        self.kind = kind
        self.source = source
        self.target = target
        self.options = options
        self.control = control
        self.console = console
        self.events = events
    }

    /// Does the work; the snapshot that it takes is gone when it returns, or is the next run's base.
    ///
    /// - Returns: what it came to.
    /// - Throws: why nothing was done.
    func run() throws(CommandFailure) -> RunPrinter.Outcome {
        var hasFailed = false
        do throws(CommandFailure) { return try runOnVolume(&hasFailed) } catch {
            // What was ended by a signal has not failed.
            guard control.isCancelled, !hasFailed, error.status == .deviceError else { throw error }
            throw CommandFailure(
                .interrupted, "\(target): \(kind.rawValue): interrupted, nothing was written")
        }
    }

    /// Does the work; see `run`.
    ///
    /// - Parameter hasFailed: set where something was in the way of the run that is no signal.
    /// - Returns: what it came to.
    /// - Throws: why nothing was done.
    private func runOnVolume(
        _ hasFailed: inout Bool
    ) throws(CommandFailure) -> RunPrinter.Outcome {
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
        let session = VolumeSession(
            origin: volume, read: snapshot?.volume ?? volume, lvm: lvm, target: target, kind: kind,
            plan: plan, control: control, console: console)
        var result: VolumeSession.Ending
        do throws(CommandFailure) {
            result = try session.run(
                options, whereSourceIs: { snapshot?.isSound() ?? true }, events)
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
        return RunPrinter.Outcome(report: result.report, failures: result.failures)
    }

    /// Removes what killed runs have left; what somebody has open stays for the next run.
    private func removeLeftovers(of volume: LogicalVolume, _ lvm: LVM) throws(IOError) {
        let (removed, failures) = try VolumeSnapshot.removeLeftovers(of: volume, lvm)
        for name in removed { console.note("\(name): removed: a run that was killed has left it") }
        for failure in failures { console.warning("\(failure)") }
        guard let pool = volume.pool, volume.isThin else { return }
        // Where it cannot be told whose it is, whoever needs one says so.
        if (try? ThinPool(group: volume.group, pool: pool).releaseLeftover()) == true {
            console.note("\(pool): released: a run that was killed has left its metadata snapshot")
        }
    }

    /// Finds the source by what the user calls it: its name, a selector, or a path.
    private func findVolume() throws(CommandFailure) -> (LVM, LogicalVolume) {
        let path: String
        do throws(ProbeError) { path = try resolve(Selector(source)) } catch {
            throw CommandFailure(error)
        }
        do throws(IOError) {
            let identity = volumeIdentity(at: path)
            // One that is not active has no device file.
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

    /// The gate sees a snapshot as source, which is another device than the volume and those that
    /// stand on it.
    private func refuseItself(_ volume: LogicalVolume) throws(CommandFailure) {
        guard case .local(let text)? = try? Location(target) else { return }
        do throws(ProbeError) {
            try SafetyGate.refuse(text, on: volume.identity, called: source)
        } catch {
            throw CommandFailure(error)
        }
    }

    /// Keeps another run of the same job out, for as long as what it returns lives.
    private func lockedJob(of volume: LogicalVolume) throws(CommandFailure) -> RunLock? {
        guard plan.leavesBase else { return nil }
        let lock: RunLock?
        do throws(IOError) {
            lock = try RunLock("\(kind.rawValue)-\(volume.uuid)-\(try fileName(of: target))")
        } catch {
            throw CommandFailure(error)
        }
        guard let lock else {
            throw CommandFailure(
                .refused,
                "\(volume.fullName): \(kind.rawValue): another one to \(target) is running",
                advice: "Wait until it has ended.")
        }
        return lock
    }

    /// What stands for the target in a file's name, which has no slashes and 255 bytes at most.
    private func fileName(of target: String) throws(IOError) -> String {
        do throws(DigestError) {
            return hexadecimal(try sha256(of: Array(target.utf8)).prefix(16))
        } catch {
            throw IOError(target, error.operation, reason: error.reason)
        }
    }
}
