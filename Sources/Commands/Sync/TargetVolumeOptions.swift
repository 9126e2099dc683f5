// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import ArgumentParser
internal import BlockReplication

/// Options of `sync` and `refresh` for a logical volume as the target.
struct TargetVolumeOptions: ParsableArguments {
    @Flag(
        help: "With --size-policy resize or --create: also cut a logical volume that is too large.")
    var shrink = false

    @Flag(
        help: ArgumentHelp(
            "Make TARGET, a logical volume group/volume[@pool], if it is missing; resize it to fit."
        ))
    var create = false

    @Option(
        help: ArgumentHelp(
            "Take a snapshot of TARGET, a logical volume, before it is written.",
            valueName: "name"))
    var snapshotTarget: String?

    @Option(
        help: ArgumentHelp(
            "With --snapshot-target: add the time to the name, and keep the newest n of them.",
            valueName: "n"))
    var keep: Int?

    func validate(_ sizePolicy: Replication.Options.SizePolicy?) throws {
        if shrink && sizePolicy != .resize && !(create && sizePolicy == nil) {
            throw ValidationError("--shrink goes with --size-policy resize or --create")
        }
        guard let keep else { return }
        if snapshotTarget == nil { throw ValidationError("--keep goes with --snapshot-target") }
        if keep < 1 { throw ValidationError("--keep \(keep): must be at least 1") }
    }

    /// The first given option, for an error about options that exclude each other.
    var firstUsed: String? {
        shrink
            ? "--shrink"
            : create ? "--create" : snapshotTarget != nil ? "--snapshot-target" : nil
    }

    func apply(to options: inout Replication.Options) {
        options.shrinksVolume = shrink
        options.createsVolume = create
        options.targetSnapshot = snapshotTarget
        options.keptSnapshots = keep
    }
}
