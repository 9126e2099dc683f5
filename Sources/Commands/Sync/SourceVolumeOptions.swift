// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import ArgumentParser
internal import BlockReplication
internal import WireProtocol

struct SnapshotSizeOption: ParsableArguments {
    @Option(
        name: .customLong("snapshot-size"),
        help: ArgumentHelp(
            "Room of a snapshot that is not thin, such as 5G or 20% of the volume (default: 10%).",
            valueName: "size"))
    var room: SnapshotRoom?

    func apply(to options: inout Replication.Options) {
        if let room { options.snapshotSize = room.size }
    }
}

struct SourceVolumeOptions: ParsableArguments {
    @Flag(help: "Read SOURCE, a logical volume, through a snapshot that is taken for this run.")
    var snapshot = false

    @OptionGroup var size: SnapshotSizeOption

    @Option(
        help: ArgumentHelp(
            "Read only what has changed since SNAPSHOT, which TARGET is a replica of.",
            valueName: "snapshot"))
    var since: String?

    func validate() throws {
        if size.room != nil && !snapshot {
            throw ValidationError("--snapshot-size goes with --snapshot")
        }
    }

    /// The first given option, for an error about options that exclude each other.
    var firstUsed: String? { snapshot ? "--snapshot" : since != nil ? "--since" : nil }

    func apply(to options: inout Replication.Options) {
        options.snapshotsSource = snapshot
        size.apply(to: &options)
        options.since = since
    }
}

/// Bytes, or a percentage of the volume.
struct SnapshotRoom: ExpressibleByArgument {
    let size: Replication.Options.SnapshotSize

    init?(argument: String) {
        if argument.hasSuffix("%") {
            guard let share = Int(argument.dropLast()), (1...100).contains(share) else {
                return nil
            }
            size = .percent(share)
        } else {
            guard let size = ByteSize(argument), size.bytes > 0 else { return nil }
            self.size = .bytes(size.bytes)
        }
    }
}
