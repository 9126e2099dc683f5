// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import LinuxIO
internal import LogicalVolumes
internal import SyncEngine
internal import Synchronization

/// A snapshot of the source that is made for one run, and watched over while it lasts.
struct SnapshotSource {
    private let snapshot: VolumeSnapshot
    private let watch: SnapshotWatch

    /// As it was when it was made.
    var volume: LogicalVolume { snapshot.volume }

    /// Takes the snapshot.
    ///
    /// - Parameters:
    ///   - origin: of what.
    ///   - size: of a classic snapshot's store.
    ///   - lvm: does it.
    ///   - control: of the run; it is cancelled where the snapshot is about to overflow.
    ///   - console: told of it.
    /// - Throws: what LVM says; nothing is left then.
    init(
        of origin: LogicalVolume, size: VolumeSnapshot.Size, _ lvm: LVM, _ control: RunControl,
        _ console: Console
    ) throws(IOError) {
        snapshot = try VolumeSnapshot(of: origin, size: size, lvm)
        console.note("\(snapshot.volume.fullName): a snapshot of \(origin.fullName)")
        watch = SnapshotWatch(snapshot, control, console)
    }

    /// Looks whether all that was read of it so far was as it was when it was made; what is wrong is
    /// said by `finish`.
    func isSound() -> Bool { watch.isSound() }

    /// Ends the use of the snapshot, which nobody has open any more: removes it, or leaves it as a
    /// base.
    ///
    /// - Parameter record: what it is good for; `nil` to remove it.
    /// - Returns: what is to be said of it: that it overflowed, or cannot be removed.
    func finish(keptAs record: ReplicaRecord? = nil) -> [CommandFailure] {
        var failures = watch.stop().map { [CommandFailure($0)] } ?? []
        do throws(IOError) {
            if let record, failures.isEmpty {
                try snapshot.keep(as: record)
            } else {
                try snapshot.remove()
            }
        } catch {
            failures.append(CommandFailure(error))
        }
        return failures
    }
}

/// Looks at a classic snapshot as long as it is read: gives it more room while there is some, and
/// ends the run in order before it overflows.
private final class SnapshotWatch: Sendable {
    /// From here on it is extended, or the run ended; of its store, in percent.
    private static let limit = 80.0
    private static let pause = Duration.seconds(1)

    private let snapshot: VolumeSnapshot
    private let control: RunControl
    private let console: Console
    private let problem = Mutex<IOError?>(nil)
    /// Bytes that the store had when LVM did not make it larger any more, as it has all that it can
    /// ever need.
    private let fullSize = Mutex<Int?>(nil)
    private let ticker = Mutex<Ticker?>(nil)

    init(_ snapshot: VolumeSnapshot, _ control: RunControl, _ console: Console) {
        self.snapshot = snapshot
        self.control = control
        self.console = console
        guard snapshot.volume.isClassicSnapshot else { return }
        ticker.withLock { $0 = Ticker(Self.pause) { [self] in look() } }
    }

    /// Ends the watch.
    ///
    /// - Returns: why the run ended early, or must not count.
    func stop() -> IOError? {
        ticker.withLock { $0.take() }?.stop()
        _ = isSound()
        return problem.withLock { $0 }
    }

    /// Looks once more.
    func isSound() -> Bool {
        // One that has overflowed since the last look was not read to the end as it was.
        if snapshot.volume.isClassicSnapshot { check { _ in } }
        return problem.withLock { $0 == nil }
    }

    private func look() {
        check { now throws(IOError) in
            let size = now.storeSize ?? now.size
            guard now.snapshotPercent ?? 100 >= Self.limit, fullSize.withLock({ $0 }) != size
            else { return }
            do throws(IOError) {
                // Where there is not so much room, what there is.
                try snapshot.extend(by: min(size / 2, max(now.groupFree, now.extentSize)))
                let after = try snapshot.status().storeSize ?? size
                if after == size { fullSize.withLock { $0 = size } }
                console.note("\(now.fullName): extended to \(after) bytes")
            } catch {
                throw IOError(
                    now.fullName, "snapshot",
                    reason: "it is about to overflow, and cannot be extended: \(error.reason)",
                    advice: "Make room in \(now.group), or --snapshot-size larger.")
            }
        }
    }

    /// Makes sure that it has not overflowed, and does more with what LVM says of it.
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
