// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import ArgumentParser
internal import BlockReplication

/// Options that permit a run to change the size or the content of its target.
struct ConsentOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "What to do about another size: refuse (default for devices), resize (for images) or "
                + "prefix.", valueName: "policy"))
    var sizePolicy: Replication.Options.SizePolicy?

    @Flag(help: "Write even though something else than the source is on the target.")
    var overwrite = false

    func apply(to options: inout Replication.Options) {
        options.sizePolicy = sizePolicy
        options.overwrites = overwrite
    }
}

struct ChangeLimitOption: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Compare first, and write nothing where more than so much of TARGET differs.",
            valueName: "percent"))
    var maxChange: Percentage?
}

struct BackupTableOptions: ParsableArguments {
    @Flag(
        help: ArgumentHelp(
            "Have the backup of SOURCE's GPT at the end of a larger TARGET; implies --size-policy "
                + "prefix."))
    var moveBackupGpt = false

    /// Applies the option; the options already have the size policy.
    func apply(to options: inout Replication.Options) {
        options.movesBackupTable = moveBackupGpt
        if moveBackupGpt { options.sizePolicy = options.sizePolicy ?? .prefix }
    }

    /// Throws if the target may not be larger than the source.
    func validate(_ sizePolicy: Replication.Options.SizePolicy?) throws {
        guard moveBackupGpt, let sizePolicy, sizePolicy != .prefix else { return }
        throw ValidationError("--move-backup-gpt goes with --size-policy prefix only")
    }
}
