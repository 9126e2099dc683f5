// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockClient
internal import BlockDevices
package import DeviceProbe
internal import Digests
internal import LinuxIO
internal import LogicalVolumes
internal import SyncEngine
package import WireProtocol
internal import Zstandard

extension Replication {
    public struct Options: Sendable {
        /// The handling of a target whose size differs from the source's.
        public enum SizePolicy: String, CaseIterable, Sendable {
            /// Sizes must be equal.
            case refuse
            /// The target gets the source's size.
            case resize
            /// A larger target is accepted, and its tail is not changed.
            case prefix
        }

        /// The room of a snapshot that is not thin: what may be written to the source meanwhile.
        public enum SnapshotSize: Hashable, Sendable {
            /// Percent of the source, 1 to 100.
            case percent(Int)
            /// At least 1; LVM rounds up to whole extents.
            case bytes(Int)
        }

        /// Whether data is compressed on its way to or from a server; not with a pdiffcopy server.
        public enum Compression: Hashable, Sendable {
            /// Where the run becomes faster by it, as measurements during the run show.
            case auto
            case none
            /// With zstd, at a level from 1 to 19. The run fails if one side has no libzstd.
            case zstd(level: Int)
        }

        /// The unit of comparison and transfer in bytes, a multiple of 512 up to 16 MiB, 4 KiB by
        /// default.
        ///
        /// It is raised if a device cannot transfer so little.
        public var blockSize: Int?
        /// The digest for comparisons with a server, any of libcrypto; `nil` for the fastest on
        /// both sides.
        public var digest: String?
        /// Worker threads, 1 to 256, each with its own connection to a server; `nil` to suit the
        /// machine and the devices.
        public var concurrency: Int?
        /// Reads the source, a logical volume of this machine, through a snapshot of its own.
        ///
        /// A refresh always does.
        public var snapshotsSource = false
        /// The size of that snapshot; the run ends before the snapshot overflows.
        public var snapshotSize = SnapshotSize.percent(10)
        /// Called before that snapshot is taken; if it throws, the run ends without it.
        ///
        /// A run that waits for a busy target may take several snapshots, one after the other.
        public var beforeSnapshot: (@Sendable () throws(ReplicationError) -> Void)?
        /// Called with the snapshot's name, as `group/snapshot`, once it is taken; if it throws,
        /// the run ends, and removes the snapshot.
        ///
        /// It is called after each call of `beforeSnapshot`, with `nil` if there is no snapshot.
        public var afterSnapshot: (@Sendable (String?) throws(ReplicationError) -> Void)?
        /// A snapshot of the source, a logical volume of this machine.
        ///
        /// The run reads only the ranges that programs have changed since the snapshot was taken.
        ///
        /// The target is the replica of the snapshot, which is named alone, as `group/snapshot`, or
        /// by its path. If the target may no longer be the replica, a warning has the reason, and
        /// the run compares everything.
        public var since: String?
        /// Compares the target with the snapshot of the source, a logical volume of this machine,
        /// that the last refresh of the target has left.
        ///
        /// If they differ, the next refresh compares everything.
        public var comparesBase = false
        /// Compares only a part; for a comparison only.
        public var sample: Sample?
        /// Whether the source of a comparison is a file of `blkferry digest`.
        package var comparesDigests = false
        /// What that file must have, from elsewhere; `nil` for what it says itself.
        package var pinnedDigests: VerityDigests?
        /// The size of a source on standard input, in bytes; `nil` if it is unknown.
        public var streamSize: Int?
        /// Writes everything without comparing.
        public var wholeFile = false
        /// Reads and compares both sides again after the flush.
        public var verifies = false
        /// Skips unreadable blocks of the source instead of failing.
        public var skipsUnreadable = false
        /// The handling of another size; `nil` for `refuse` with a block device and `resize` with
        /// an image.
        ///
        /// A comparison uses only `prefix`, with which a larger target may be equal.
        public var sizePolicy: SizePolicy?
        /// Writes even if the target contains something else than the source.
        public var overwrites = false
        /// Writes nothing if more than this percentage of the target would change, 0 to 100.
        ///
        /// It is `nil` for no limit. Both sides are compared once more for it, before the first
        /// write.
        public var maximumChange: Double?
        /// Puts the backup of the source's GPT at the end of a larger target, with `sizePolicy`
        /// `prefix`.
        ///
        /// The target's header then contains the new place, which a comparison with this option
        /// accepts.
        public var movesBackupTable = false
        /// Shrinks a logical volume that is larger than the source needs, with `sizePolicy`
        /// `resize`.
        public var shrinksVolume = false
        /// Creates a missing logical volume `group/volume`, or a thin one with `@pool` behind.
        public var createsVolume = false
        /// Takes a snapshot with this name of a logical volume before writing to it.
        public var targetSnapshot: String?
        /// Adds the date to the names of these snapshots, and keeps this many of them, at least 1.
        public var keptSnapshots: Int?
        /// Keeps what is overwritten on a target of this machine; `nil` for nothing.
        public var undo: Undo?
        /// Lets a run that ends early leave a checkpoint, from which the next one continues.
        public var checkpoint: Checkpoint?
        /// Copies from a failing source with a map, for `synchronize` and `dryRun`; `nil` without.
        ///
        /// Unreadable blocks are skipped then.
        public var mapfile: Mapfile?
        /// The time to wait for a target that is mounted, claimed, locked, or in another client's
        /// session.
        ///
        /// With `nil` it is ten seconds, and only for locks and claims.
        public var wait: Duration?
        /// The time for which a lost connection to a server is tried again, 30 seconds by default.
        ///
        /// It counts from the first failure. With zero the first one ends the run.
        public var retryFor = Duration.seconds(30)
        /// The compression of data on its way to or from a server.
        public var compression = Compression.auto
        /// Maximum bytes a second over the network, at least 1024; `nil` for no limit.
        public var bytesPerSecond: Int?
        public var access = Access()

        public init() {}
    }

    /// Credentials for servers, and those expected of them, in PEM files.
    public struct Access: Sendable {
        /// The token, which is sent only to the server; `nil` for none.
        public var token: String?
        /// A file with the authorities that sign servers' certificates; `nil` for the system's.
        public var authorities: String?
        /// A file with the certificate of this side.
        public var certificate: String?
        /// A file with its key.
        public var key: String?
        /// `sha256//` and the base64 digest of the server's public key.
        ///
        /// Without `authorities`, the client checks only this key, and no authority.
        public var pinnedPublicKey: String?
        /// The program that connects to `ssh://` servers, and its first arguments.
        public var sshCommand = ["ssh"]
        /// The command that the shell on the server starts.
        public var remoteCommand = "blkferry"

        public init() {}
    }
}

extension Replication.Options {
    /// Throws `invalid` with the first fault of the options themselves, without any I/O.
    package func check() throws(ReplicationError) {
        if let size = blockSize {
            guard BlockLayout.isBlock(size) else {
                throw invalid("block size \(size): must be a multiple of 512 from 512 to 16 MiB")
            }
        }
        if let concurrency, !(1...256).contains(concurrency) {
            throw invalid("concurrency \(concurrency): must be from 1 to 256")
        }
        if let wait, wait < .zero { throw invalid("wait: must not be negative") }
        if retryFor < .zero { throw invalid("retry-for: must not be negative") }
        if let rate = bytesPerSecond, rate < 1024 {
            throw invalid("bwlimit \(rate): must be at least 1024 bytes a second")
        }
        if case .zstd(let level) = compression, !Zstd.levels.contains(level) {
            throw invalid(
                "compress zstd:\(level): the level must be from \(Zstd.levels.lowerBound) to "
                    + "\(Zstd.levels.upperBound)")
        }
        if let sample, !(sample.percent > 0 && sample.percent <= 100) {
            throw invalid("sample \(sample.percent): must be more than 0 and at most 100 percent")
        }
        if let limit = maximumChange {
            guard (0...100).contains(limit) else {
                throw invalid("max-change \(limit): must be from 0 to 100 percent")
            }
            guard !wholeFile else {
                throw invalid("max-change: does not go with whole-file, which compares nothing")
            }
        }
        if movesBackupTable && sizePolicy != .prefix {
            throw invalid("move backup GPT: goes with size policy prefix only")
        }
        try checkMapfile()
        if let snapshot = targetSnapshot,
            !VolumePlace.isName(snapshot) || VolumePlace.isReserved(snapshot)
        {
            throw invalid("snapshot \(snapshot): is no name that a logical volume can have")
        }
        if let kept = keptSnapshots {
            guard targetSnapshot != nil else {
                throw invalid("keep \(kept): goes with a target snapshot only")
            }
            guard kept > 0 else { throw invalid("keep \(kept): must be at least 1") }
        }
    }

    private func checkMapfile() throws(ReplicationError) {
        guard let mapfile else { return }
        if mapfile.path.isEmpty { throw invalid("map: a file is missing") }
        if let timeout = mapfile.readTimeout, timeout <= .zero {
            throw invalid("read-timeout: must be more than 0")
        }
        let others = [
            ("whole-file", wholeFile), ("verify", verifies), ("undo", undo != nil),
            ("max-change", maximumChange != nil), ("move-backup-gpt", movesBackupTable),
            ("snapshot", snapshotsSource), ("since", since != nil), ("base", comparesBase),
            ("sample", sample != nil),
        ]
        if let other = others.first(where: \.1) {
            throw invalid("map: does not go with \(other.0)")
        }
    }

    /// Whether a run takes or uses snapshots of its source.
    package func readsVolume(_ action: Replication.Action) -> Bool {
        action == .refresh || snapshotsSource || since != nil || comparesBase
    }

    /// Throws `invalid` unless a run that reads a volume can do that with these options.
    func checkVolume(
        _ action: Replication.Action, _ source: Location
    ) throws(ReplicationError) {
        if source.remote != nil {
            throw invalid("\(source): has to be a logical volume of this machine")
        }
        guard action != .compare || (!snapshotsSource && since == nil) else {
            throw invalid("snapshot, since: do not go with a comparison")
        }
        guard action == .compare || !comparesBase else {
            throw invalid("base: goes with a comparison only")
        }
        guard mapfile == nil else { throw invalid("map: does not go with a refresh") }
        guard action != .refresh || since == nil else {
            throw invalid("since: does not go with a refresh")
        }
        guard checkpoint == nil else {
            throw invalid(
                "checkpoint: does not go with a refresh, snapshot, since or base: a new snapshot "
                    + "is another source")
        }
        guard !wholeFile || (action != .refresh && since == nil) else {
            throw invalid("whole-file: does not go with a refresh or since")
        }
        switch snapshotSize {
        case .percent(let share) where !(1...100).contains(share):
            throw invalid("snapshot size \(share): must be from 1 to 100 percent")
        case .bytes(let count) where count < 1:
            throw invalid("snapshot size \(count): must be at least 1 byte")
        default: break
        }
    }

    private func invalid(_ message: String) -> ReplicationError {
        ReplicationError(.invalid, message)
    }

    /// The block size in bytes, or its default.
    var wantedBlock: Int { blockSize ?? BlockLayout.defaultBlock }

    package func policy(isDryRun: Bool) -> GatePolicy {
        var policy = GatePolicy(
            sizePolicy: sizePolicy.flatMap { DeviceProbe.SizePolicy(rawValue: $0.rawValue) },
            overwrite: overwrites, isDryRun: isDryRun)
        policy.shrinks = shrinksVolume
        policy.movesBackup = movesBackupTable
        policy.creates = createsVolume
        policy.snapshot = targetSnapshot.map { TargetSnapshot(name: $0, keeps: keptSnapshots) }
        return policy
    }

    func digestMethod() throws(ReplicationError) -> DigestMethod? {
        guard let digest else { return nil }
        do throws(IOError) { return try DigestMethod(named: digest) } catch {
            throw ReplicationError(
                .invalid, "hash method \(error.object): \(error.reason)", advice: error.advice)
        }
    }

    var serverTrust: ServerTrust {
        ServerTrust(
            authorities: access.authorities, certificate: access.certificate,
            key: access.key ?? access.certificate, pin: access.pinnedPublicKey)
    }

    func sshSettings(isTarget: Bool) -> SSHSettings {
        var settings = SSHSettings()
        settings.command = access.sshCommand
        settings.remoteCommand = access.remoteCommand
        settings.isTarget = isTarget
        settings.makesVolumes = isTarget && (createsVolume || targetSnapshot != nil)
        return settings
    }
}

extension Replication.Options.Compression {
    var ofClient: CompressionMode {
        switch self {
        case .auto: .auto
        case .none: .none
        case .zstd(let level): .zstd(level: level)
        }
    }
}

extension Replication.Options.SnapshotSize {
    var ofStore: VolumeSnapshot.Size {
        switch self {
        case .percent(let share): .percent(share)
        case .bytes(let count): .bytes(count)
        }
    }
}
