// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import ArgumentParser
internal import LogicalVolumes

/// What is to be done about a source that is a logical volume; by default nothing.
struct VolumePlan {
    /// What the changes are counted from.
    enum Base {
        /// A snapshot, as the user names it.
        case snapshot(String)
        /// What the last refresh of the same target has left.
        case lastRun
    }

    /// The volume is read through a snapshot that is taken for it.
    var takesSnapshot = false
    var snapshotSize = VolumeSnapshot.Size.usual
    /// Only what has changed since is read; `nil` to compare everything.
    var base: Base?
    /// The snapshot that was taken stays, as the base of the next run.
    var leavesBase = false

    var isForVolumes: Bool { takesSnapshot || base != nil }
}

/// How much room a snapshot of the source gets.
struct SnapshotSizeOption: ParsableArguments {
    @Option(
        name: .customLong("snapshot-size"),
        help: ArgumentHelp(
            "Room of a snapshot that is not thin, such as 5G or 20% of the volume (default: 10%).",
            valueName: "size"))
    var size: VolumeSnapshot.Size?
}

/// Options of `sync` for a logical volume as source.
struct SourceVolumeOptions: ParsableArguments {
    @Flag(help: "Read SOURCE, a logical volume, through a snapshot that is taken for this run.")
    var snapshot = false

    @OptionGroup var room: SnapshotSizeOption

    @Option(
        help: ArgumentHelp(
            "Read only what has changed since SNAPSHOT, which TARGET is a replica of.",
            valueName: "snapshot"))
    var since: String?

    func validate() throws {
        if room.size != nil && !snapshot {
            throw ValidationError("--snapshot-size goes with --snapshot")
        }
    }

    var plan: VolumePlan {
        VolumePlan(
            takesSnapshot: snapshot, snapshotSize: room.size ?? .usual,
            base: since.map { .snapshot($0) })
    }
}

extension VolumeSnapshot.Size: ExpressibleByArgument {
    /// Reads bytes, or a share of the volume in percent.
    package init?(argument: String) {
        if argument.hasSuffix("%") {
            guard let share = Int(argument.dropLast()), (1...100).contains(share) else {
                return nil
            }
            self = .percent(share)
        } else {
            guard let size = ByteSize(argument), size.bytes > 0 else { return nil }
            self = .bytes(size.bytes)
        }
    }
}
