// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import DeviceProbe
internal import Digests
internal import LinuxIO
internal import LogicalVolumes
internal import SyncEngine
internal import WireProtocol

/// A run whose source is a logical volume, through a snapshot, or limited to the changes since one;
/// or a comparison with a base.
struct VolumeJob: Sendable {
    let action: Replication.Action
    let operands: Operands
    let options: Replication.Options
    let control: RunControl
    let events: @Sendable (Replication.Event) -> Void

    /// The volume as the user named it.
    private var source: String { operands.source.description }
    var target: String { operands.target.description }

    typealias Work = @Sendable () -> Replication.Report

    /// Takes the snapshot, opens both devices, and determines the changes; or opens the target and
    /// its base.
    func open() throws(ReplicationError) -> Work {
        var hasFailed = false
        do throws(ReplicationError) { return try openWhenFree(&hasFailed) } catch {
            // An error that a signal caused counts as an interruption.
            let isEnded =
                [.device, .network, .interrupted].contains(error.kind)
                || BusyWait.isBusy(error.cause)
            guard control.isCancelled, !hasFailed, isEnded else { throw error }
            throw ReplicationError(
                .interrupted, "\(target): \(action.rawValue): interrupted, nothing was written")
        }
    }

    /// Opens, and waits for a busy target if the user wants that; no snapshot is kept during the
    /// wait.
    private func openWhenFree(_ hasFailed: inout Bool) throws(ReplicationError) -> Work {
        var wait = BusyWait(options.wait, control, events)
        while true {
            var failure: ReplicationError
            do throws(ReplicationError) { return try openNow(&hasFailed) } catch {
                failure = error
            }
            repeat {
                guard wait.pauses(after: failure.message, failure.cause) else { throw failure }
            } while isBusy
        }
    }

    /// Whether the gate would refuse the target because it is in use.
    private var isBusy: Bool {
        guard action != .compare else { return false }
        do throws(ReplicationError) {
            _ = try OpenPair(.dryRun, operands, options: pairOptions, control: control) { _ in }
            return false
        } catch {
            return BusyWait.isBusy(error.cause)
        }
    }

    /// Options without a wait, because this type waits itself; a snapshot of the source must not
    /// age during a wait.
    var pairOptions: Replication.Options {
        var options = options
        if options.wait != nil { options.wait = .zero }
        return options
    }

    /// Opens once; sets `hasFailed` if something other than a signal failed.
    private func openNow(_ hasFailed: inout Bool) throws(ReplicationError) -> Work {
        let (lvm, volume) = try findVolume()
        guard !volume.isPart, !volume.isThinPool else {
            throw ReplicationError(.refused, "\(source): read: it is a part of LVM itself")
        }
        let takesSnapshot = action == .refresh || options.snapshotsSource
        guard volume.isActive || (takesSnapshot && volume.isThin) else {
            throw ReplicationError(
                IOError(
                    volume.fullName, "read", reason: "it is not active",
                    advice: "Activate it first: lvchange --activate y \(volume.fullName)"))
        }
        try refuseItself(volume)
        let lock = try lockedJob(of: volume)
        defer { withExtendedLifetime(lock) {} }
        if action == .compare {
            let comparison = try BaseComparison(self, of: volume, lvm, lock)
            return { comparison.run() }
        }
        var snapshot: SnapshotSource?
        do throws(IOError) { try removeLeftovers(of: volume, lvm) } catch {
            throw ReplicationError(error)
        }
        do throws(ReplicationError) {
            if takesSnapshot { try take(&snapshot, of: volume, lvm) }
            let run = try RefreshRun(self, of: volume, through: snapshot, lvm, lock)
            return { run.run() }
        } catch {
            var error = error
            for failure in snapshot?.finish() ?? [] {
                hasFailed = true
                events(.failure(failure))
                // A snapshot that stays weighs more than an interruption.
                if error.kind == .interrupted { error.kind = failure.kind }
            }
            throw error
        }
    }

    /// Takes the snapshot, between the two calls that the options ask for.
    private func take(
        _ snapshot: inout SnapshotSource?, of volume: LogicalVolume, _ lvm: LVM
    ) throws(ReplicationError) {
        var failure: ReplicationError?
        do throws(ReplicationError) {
            try options.beforeSnapshot?()
            do throws(IOError) {
                snapshot = try SnapshotSource(
                    of: volume, size: options.snapshotSize.ofStore, lvm, control, events)
            } catch {
                throw ReplicationError(error)
            }
        } catch {
            failure = error
        }
        do throws(ReplicationError) {
            try options.afterSnapshot?(snapshot?.volume.fullName)
        } catch {
            if failure != nil { events(.failure(error)) } else { failure = error }
        }
        if let failure { throw failure }
    }

    /// Removes the snapshots that killed runs left; open ones stay for the next run.
    private func removeLeftovers(of volume: LogicalVolume, _ lvm: LVM) throws(IOError) {
        let (removed, failures) = try VolumeSnapshot.removeLeftovers(of: volume, lvm)
        for name in removed {
            events(.note("\(name): removed: a run that was killed has left it"))
        }
        for failure in failures { events(.warning("\(failure)")) }
        guard let pool = volume.pool, volume.isThin else { return }
        // The owner of a held metadata snapshot may be unknown. A later change map reports that.
        if (try? ThinPool(group: volume.group, pool: pool).releaseLeftover()) == true {
            events(
                .note("\(pool): released: a run that was killed has left its metadata snapshot"))
        }
    }

    /// Finds the source by its name, a selector, or a path.
    private func findVolume() throws(ReplicationError) -> (LVM, LogicalVolume) {
        let path: String
        do throws(IOError) { path = try resolve(operands.source.local ?? .path(source)) } catch {
            throw ReplicationError(error)
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
            throw ReplicationError(error)
        }
    }

    /// Refuses a target that is the volume, or is on it; the gate would compare only with the
    /// snapshot.
    private func refuseItself(_ volume: LogicalVolume) throws(ReplicationError) {
        guard let selector = operands.target.local else { return }
        do throws(IOError) {
            try SafetyGate.refuse(selector, on: volume.identity, called: source)
        } catch {
            throw ReplicationError(error)
        }
    }

    /// Locks the job against another run, as long as the result lives.
    private func lockedJob(of volume: LogicalVolume) throws(ReplicationError) -> RunLock? {
        // A refresh would change the target while it is compared with its base.
        guard action == .refresh || action == .compare else { return nil }
        let lock: RunLock?
        do throws(IOError) {
            lock = try RunLock("refresh-\(volume.uuid)-\(try fileName(of: target))")
        } catch {
            throw ReplicationError(error)
        }
        guard let lock else {
            var failure = ReplicationError(
                .refused,
                "\(volume.fullName): \(action.rawValue): another run to \(target) is in progress",
                advice: "Wait until it has ended"
                    + (action == .refresh ? ", or say --wait DURATION." : "."))
            failure.cause = IOError.Refusal.locked.rawValue
            throw failure
        }
        return lock
    }

    /// Returns a file name for the target; a file name has no slashes and at most 255 bytes.
    private func fileName(of target: String) throws(IOError) -> String {
        hexadecimal(try sha256(of: Array(target.utf8)).prefix(16))
    }
}
