// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import ArgumentParser
internal import BlockReplication
internal import Glibc
internal import WireProtocol

/// `blkferry verify`: compares and writes nothing.
struct Verify: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Compare SOURCE and TARGET; end with 1 when they differ.",
        usage: """
            blkferry verify [<options>] <source> <target>
            blkferry verify --config <name> [<options>]
            blkferry verify --digest <file> [<options>] <target>
            """)

    /// `ReplicaFile.expand` has replaced it by what is in the file.
    @Option(
        help: ArgumentHelp(
            "Take SOURCE, TARGETs and options from the file of a replica, as refresh does; implies "
                + "--base.", valueName: "name"))
    var config: String?

    @Flag(help: "Compare with the snapshot of SOURCE that the last refresh of TARGET has left.")
    var base = false

    @Option(
        help: ArgumentHelp(
            "Compare a random part, and each time another one until all was compared.",
            valueName: "percent"))
    var sample: Percentage?

    @OptionGroup var digest: DigestOptions
    @OptionGroup var common: ComparisonOptions
    @OptionGroup var priority: PriorityOptions
    @OptionGroup var replica: ReplicaOption

    @Option(
        help: ArgumentHelp(
            "With prefix, a TARGET that is larger than SOURCE may be equal.", valueName: "policy"))
    var sizePolicy: Replication.Options.SizePolicy?

    @Flag(help: "Leave unreadable blocks of the source out and end with 6, if all else is equal.")
    var skipUnreadable = false

    @OptionGroup var stop: StopOption
    @OptionGroup var backupTable: BackupTableOptions

    private var comparesBase: Bool { base || config != nil }

    func validate() throws {
        // In a file it is for the refresh.
        if sizePolicy == .resize && config == nil {
            throw ValidationError("--size-policy resize: verify writes nothing")
        }
        if let sample, sample.value == 0 {
            throw ValidationError("--sample 0: must be more than 0")
        }
        if comparesBase, try common.operands.source.remote != nil {
            throw ValidationError("--base: SOURCE must be a logical volume of this machine")
        }
        try backupTable.validate(sizePolicy)
        try digest.validate(
            common,
            others: [
                ("--base", comparesBase), ("--skip-unreadable", skipUnreadable),
                ("--move-backup-gpt", backupTable.moveBackupGpt),
                ("--replica", replica.replica != nil),
            ])
    }

    func run() throws {
        priority.apply(common.console)
        var options = common.options()
        options.sizePolicy = sizePolicy
        options.skipsUnreadable = skipUnreadable
        options.comparesBase = comparesBase
        backupTable.apply(to: &options)
        digest.apply(to: &options)
        let recorded = try replica.recorded(config: config, common)
        options.sample = sample.map { .init(percent: $0.value, continuing: recorded?.round) }
        let start = time(nil)
        let outcome = try RunCommand(common, .compare, stopAfter: stop.stopAfter).outcome(options)
        recorded?.verified(since: start, outcome)
        throw CommandEnd(status: outcome.status)
    }
}
