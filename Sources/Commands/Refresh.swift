// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import ArgumentParser
internal import BlockReplication
internal import DeviceProbe
internal import LogicalVolumes

/// `blkferry refresh`: keeps a replica of a logical volume up to date, at the cost of what has
/// changed.
struct Refresh: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract:
            "Bring TARGET up to date with SOURCE, a logical volume, reading only what changed.",
        discussion: """
            Takes a snapshot of SOURCE, reads what has changed since the snapshot that the last \
            refresh of TARGET has left, writes and flushes it, compares a sample, and leaves the new \
            snapshot for the next time. Where the last snapshot is missing, or it is in doubt \
            whether TARGET still is its replica, that is said and everything is compared.
            """)

    @OptionGroup var common: ComparisonOptions
    @OptionGroup var volume: TargetVolumeOptions

    @OptionGroup var snapshot: SnapshotSizeOption

    @OptionGroup var consent: ConsentOptions

    @Flag(help: "Read both sides again after the flush, all of them, and compare.")
    var verify = false

    func validate() throws {
        if common.isRemote(common.source) {
            throw ValidationError("SOURCE must be a logical volume of this machine")
        }
        try volume.validate(consent.sizePolicy)
    }

    func run() throws {
        var options = common.options()
        consent.apply(to: &options)
        options.verifies = verify
        volume.apply(to: &options)
        let plan = VolumePlan(
            takesSnapshot: true, snapshotSize: snapshot.size ?? .usual, base: .lastRun,
            leavesBase: true)
        try RunPrinter(common, kind: .refresh, plan: plan).run(options)
    }
}
