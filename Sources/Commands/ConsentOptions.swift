// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import ArgumentParser
internal import BlockReplication
internal import DeviceProbe

/// What may become of a target that is not what it is to be.
struct ConsentOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "What to do about another size: refuse (default for devices), resize (for images) or "
                + "prefix.", valueName: "policy"))
    var sizePolicy: SizePolicy?

    @Flag(help: "Write even though something else than the source is on the target.")
    var overwrite = false

    /// Puts them into the options of a run.
    func apply(to options: inout Replication.Options) {
        options.sizePolicy = sizePolicy?.asOption
        options.overwrites = overwrite
    }
}
