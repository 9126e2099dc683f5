// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import ArgumentParser
internal import BlockReplication
internal import Glibc
internal import LinuxIO
internal import WireProtocol

/// `blkferry refresh`: brings a replica of a logical volume up to date by reading only the changes.
struct Refresh: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract:
            "Bring TARGET up to date with SOURCE, a logical volume, reading only what changed.",
        usage: """
            blkferry refresh [<options>] <source> <target>
            blkferry refresh --config <name> [<options>]
            """,
        discussion: """
            Takes a snapshot of SOURCE, reads what has changed since the snapshot that the last \
            refresh of TARGET has left, writes and flushes it, compares a sample, and leaves the new \
            snapshot for the next time. If the last snapshot is missing, or TARGET may no longer \
            be its replica, refresh prints why and compares everything.
            """)

    /// `ReplicaFile.expand` has replaced it by what is in the file.
    @Option(
        help: ArgumentHelp(
            "Take SOURCE, one TARGET or more, and options from /etc/blkferry/replicas/NAME.conf, "
                + "or from a file whose path has a slash.", valueName: "name"))
    var config: String?

    @OptionGroup var common: ComparisonOptions
    @OptionGroup var priority: PriorityOptions
    @OptionGroup var hookOptions: HookOptions
    @OptionGroup var replica: ReplicaOption
    @OptionGroup var volume: TargetVolumeOptions
    @OptionGroup var undo: UndoOptions

    @OptionGroup var snapshot: SnapshotSizeOption

    @OptionGroup var consent: ConsentOptions
    @OptionGroup var changeLimit: ChangeLimitOption

    @OptionGroup var patience: WaitOption
    @OptionGroup var stop: StopOption
    @OptionGroup var compression: CompressOption

    @OptionGroup var backupTable: BackupTableOptions

    @Flag(help: "Read both sides again after the flush, all of them, and compare.")
    var verify = false

    func validate() throws {
        if try common.operands.source.remote != nil {
            throw ValidationError("SOURCE must be a logical volume of this machine")
        }
        try volume.validate(consent.sizePolicy)
        try undo.validate(common)
        try backupTable.validate(consent.sizePolicy)
    }

    func run() throws {
        priority.apply(common.console)
        var options = common.options()
        consent.apply(to: &options)
        options.wait = patience.wait?.duration
        options.compression = compression.compress
        backupTable.apply(to: &options)
        options.verifies = verify
        options.maximumChange = changeLimit.maxChange?.value
        volume.apply(to: &options)
        undo.apply(to: &options)
        snapshot.apply(to: &options)
        let start = time(nil)
        let command = try RunCommand(common, .refresh, stopAfter: stop.stopAfter)
        let hooks = try Hooks(hookOptions, common.operands, config: config, common.console)
        let recorded = try replica.recorded(config: config, common)
        if hookOptions.finishKilled {
            recorded?.endKilled()
            throw CommandEnd(status: hooks.finishKilled())
        }
        hooks.apply(to: &options, command.control)
        recorded?.begin(start)
        let outcome = command.outcome(options)
        recorded?.end(since: start, outcome)
        hooks.finish(outcome)
        throw CommandEnd(status: outcome.status)
    }
}
