// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import ArgumentParser
internal import BlockReplication
internal import LinuxIO

struct CheckpointOption: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "If the run ends early, leave in this file what is done, and continue there next time "
                + "(with --replica: beside its state).", valueName: "file"))
    var checkpoint: String?

    func validate() throws {
        if checkpoint == "" { throw ValidationError("--checkpoint: a file is missing") }
    }

    /// - Parameter recorded: the replica whose state has a place for a checkpoint; `nil` for none.
    func apply(to options: inout Replication.Options, _ recorded: RecordedReplica?) {
        if let checkpoint {
            options.checkpoint = .init(file: checkpoint)
        } else if let file = recorded?.checkpoint {
            options.checkpoint = .init(file: file)
            options.checkpoint?.isAutomatic = true
        }
    }
}
