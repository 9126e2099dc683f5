// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import DeviceProbe
internal import LinuxIO
internal import LogicalVolumes
internal import Synchronization
internal import WireProtocol

/// Compares a target with the snapshot of its last refresh, since the volume itself has changed.
///
/// If they differ, it removes the snapshot's record of the target. Otherwise the next refresh would
/// leave the difference unread.
final class BaseComparison: Sendable {
    private let job: VolumeJob
    private let origin: LogicalVolume
    private let lvm: LVM
    private let lock: RunLock?
    /// The target's identity.
    private let identity: String
    /// `nil` once the run has begun.
    private let opened: Mutex<OpenPair?>

    /// Finds the base, and opens it and the target.
    ///
    /// - Throws: `refused` if the target is not the replica of any base.
    init(
        _ job: VolumeJob, of origin: LogicalVolume, _ lvm: LVM, _ lock: RunLock?
    ) throws(ReplicationError) {
        self.job = job
        self.origin = origin
        self.lvm = lvm
        self.lock = lock
        // Only an open target has an identity.
        identity = try Self.open(job, job.operands) { _ in }.targetIdentity()
        let base = try Self.base(job, origin, identity, lvm)
        job.events(.note("\(base.fullName): compared, as the source of the last refresh"))
        var operands = job.operands
        operands.source = .local(.path(base.path))
        opened = Mutex(try Self.open(job, operands, job.events))
    }

    private static func open(
        _ job: VolumeJob, _ operands: Operands,
        _ events: @escaping @Sendable (Replication.Event) -> Void
    ) throws(ReplicationError) -> OpenPair {
        try OpenPair(job.action, operands, options: job.options, control: job.control, events)
    }

    private static func base(
        _ job: VolumeJob, _ origin: LogicalVolume, _ identity: String, _ lvm: LVM
    ) throws(ReplicationError) -> LogicalVolume {
        let bases: [LogicalVolume]
        do throws(IOError) {
            bases = try VolumeSnapshot.bases(of: origin, for: identity, lvm)
        } catch {
            throw ReplicationError(error)
        }
        let advice = "Refresh it first."
        guard let base = bases.first, base.replica(on: identity) != nil else {
            throw ReplicationError(
                .refused,
                "\(job.target): verify: no refresh has left a snapshot of \(origin.fullName) that "
                    + "it is the replica of", advice: advice)
        }
        guard !base.isInvalid else {
            throw ReplicationError(
                .refused, "\(base.fullName): read: it has overflowed", advice: advice)
        }
        guard base.isActive else {
            throw ReplicationError(
                .refused, "\(base.fullName): read: it is not active",
                advice: "Activate it first: lvchange --activate y \(base.fullName)")
        }
        return base
    }

    /// Compares once.
    func run() -> Replication.Report {
        guard let pair = opened.withLock({ $0.take() }) else {
            preconditionFailure("it runs once")
        }
        var report = pair.run { _ in true }
        guard report.different > 0 || report.sizesDiffer else { return report }
        do throws(IOError) {
            try VolumeSnapshot.invalidateRecords(of: origin, for: identity, lvm.uninterrupted)
            report.closingWarnings.append("\(job.target): the next refresh compares everything")
        } catch {
            report.failures.append(ReplicationError(error))
        }
        return report
    }
}
