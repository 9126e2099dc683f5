// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import LinuxIO
internal import LogicalVolumes
internal import SyncEngine
internal import Synchronization

/// A snapshot of the source for one run, and its watch.
struct SnapshotSource: Sendable {
    private let snapshot: VolumeSnapshot
    private let watch: SnapshotWatch

    /// The snapshot's state when it was made.
    var volume: LogicalVolume { snapshot.volume }

    /// Takes and watches the snapshot; cancels the run before the snapshot overflows.
    init(
        of origin: LogicalVolume, size: VolumeSnapshot.Size, _ lvm: LVM, _ control: RunControl,
        _ events: @escaping @Sendable (Replication.Event) -> Void
    ) throws(IOError) {
        snapshot = try VolumeSnapshot(of: origin, size: size, lvm)
        events(.note("\(snapshot.volume.fullName): a snapshot of \(origin.fullName)"))
        watch = SnapshotWatch(snapshot, control, events)
    }

    /// Checks that the snapshot has been valid so far; `finish` reports what is wrong.
    func isSound() -> Bool { watch.isSound() }

    /// Removes the snapshot, or keeps it as a base; no process may have it open.
    ///
    /// - Parameter record: the record to keep it with; `nil` to remove it.
    /// - Returns: failures, such as an overflow.
    func finish(keptAs record: ReplicaRecord? = nil) -> [ReplicationError] {
        var failures = watch.stop().map { [ReplicationError($0)] } ?? []
        do throws(IOError) {
            if let record, failures.isEmpty {
                try snapshot.keep(as: record)
            } else {
                try snapshot.remove()
            }
        } catch {
            failures.append(ReplicationError(error))
        }
        return failures
    }
}

/// Watches a classic snapshot while it is read: extends it while the group has room, and ends the
/// run in order before an overflow.
private final class SnapshotWatch: Sendable {
    /// Used part of the store, in percent, at which the store is extended or the run ended.
    private static let limit = 80.0
    private static let pause = Duration.seconds(1)

    private let snapshot: VolumeSnapshot
    private let control: RunControl
    private let events: @Sendable (Replication.Event) -> Void
    private let problem = Mutex<IOError?>(nil)
    /// Bytes of the store when LVM no longer extended it, because it cannot need more.
    private let fullSize = Mutex<Int?>(nil)
    private let ticker = Mutex<Ticker?>(nil)

    init(
        _ snapshot: VolumeSnapshot, _ control: RunControl,
        _ events: @escaping @Sendable (Replication.Event) -> Void
    ) {
        self.snapshot = snapshot
        self.control = control
        self.events = events
        guard snapshot.volume.isClassicSnapshot else { return }
        ticker.withLock { $0 = Ticker(Self.pause) { [self] in look() } }
    }

    /// Ends the watch; returns the reason why the run ended early or must not count.
    func stop() -> IOError? {
        ticker.withLock { $0.take() }?.stop()
        _ = isSound()
        return problem.withLock { $0 }
    }

    func isSound() -> Bool {
        // An overflow since the last check means that the last reads may be wrong.
        if snapshot.volume.isClassicSnapshot { check { _ in } }
        return problem.withLock { $0 == nil }
    }

    private func look() {
        check { now throws(IOError) in
            let size = now.storeSize ?? now.size
            guard now.snapshotPercent ?? 100 >= Self.limit, fullSize.withLock({ $0 }) != size
            else { return }
            do throws(IOError) {
                // If the group has less room, the store gets all of it.
                try snapshot.extend(by: min(size / 2, max(now.groupFree, now.extentSize)))
                let after = try snapshot.status().storeSize ?? size
                if after == size { fullSize.withLock { $0 = size } }
                events(.note("\(now.fullName): extended to \(after) bytes"))
            } catch {
                throw IOError(
                    now.fullName, "snapshot",
                    reason: "it is about to overflow, and cannot be extended: \(error.reason)",
                    advice: "Make room in \(now.group), or --snapshot-size larger.")
            }
        }
    }

    /// Cancels the run if the snapshot has overflowed or its status is unknown; otherwise runs a
    /// further check.
    private func check(_ more: (LogicalVolume) throws(IOError) -> Void) {
        guard problem.withLock({ $0 }) == nil else { return }
        do throws(IOError) {
            let now = try snapshot.status()
            if now.isInvalid { throw overflow }
            try more(now)
        } catch {
            problem.withLock { $0 = error }
            control.cancel()
        }
    }

    private var overflow: IOError {
        IOError(
            snapshot.volume.fullName, "snapshot",
            reason: "it has overflowed: what was read may be neither old nor new",
            advice: "Make --snapshot-size larger.")
    }
}
