// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import ArgumentParser
internal import BlockReplication

/// `blkferry verify`: compares and writes nothing.
struct Verify: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Compare SOURCE and TARGET; end with 1 when they differ.")

    @OptionGroup var common: ComparisonOptions

    @Option(
        help: ArgumentHelp(
            "With prefix, a TARGET that is larger than SOURCE may be equal.", valueName: "policy"))
    var sizePolicy: Replication.Options.SizePolicy?

    @Flag(help: "Leave unreadable blocks of the source out and end with 6, if all else is equal.")
    var skipUnreadable = false

    @OptionGroup var backupTable: BackupTableOptions

    func validate() throws {
        if sizePolicy == .resize {
            throw ValidationError("--size-policy resize: verify writes nothing")
        }
        try backupTable.validate(sizePolicy)
    }

    func run() throws {
        var options = common.options()
        options.sizePolicy = sizePolicy
        options.skipsUnreadable = skipUnreadable
        backupTable.apply(to: &options)
        try RunCommand(common, .compare).run(options)
    }
}
