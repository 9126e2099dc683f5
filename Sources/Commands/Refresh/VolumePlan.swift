// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import ArgumentParser
internal import LogicalVolumes
internal import WireProtocol

/// How a run treats a source that is a logical volume; by default like any device.
struct VolumePlan {
    /// The snapshot from which changes are counted.
    enum Base {
        /// A snapshot by the user's name for it.
        case snapshot(String)
        /// The snapshot that the last refresh of the same target left.
        case lastRun
    }

    /// Whether the run takes a snapshot and reads that.
    var takesSnapshot = false
    var snapshotSize = VolumeSnapshot.Size.usual
    /// The base of the changes to read; `nil` for a full comparison.
    var base: Base?
    /// Whether the snapshot stays as the base of the next run.
    var leavesBase = false

    var isForVolumes: Bool { takesSnapshot || base != nil }
}

struct SnapshotSizeOption: ParsableArguments {
    @Option(
        name: .customLong("snapshot-size"),
        help: ArgumentHelp(
            "Room of a snapshot that is not thin, such as 5G or 20% of the volume (default: 10%).",
            valueName: "size"))
    var size: VolumeSnapshot.Size?
}

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
    /// Parses bytes, or a percentage of the volume.
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
