// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import ArgumentParser
internal import BlockReplication
internal import WireProtocol

/// Options of `sync` and `refresh` for a way back.
struct UndoOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Keep what is overwritten in this new file, on another device than TARGET; blkferry "
                + "rollback makes TARGET what it was.", valueName: "file"))
    var undo: String?

    @Option(
        help: ArgumentHelp("With --undo: bytes of the file at most.", valueName: "size"))
    var undoLimit: ByteSize?

    @Flag(
        help: ArgumentHelp(
            "With --undo: replace the file if it is a journal of TARGET, from a run that has "
                + "succeeded."))
    var undoReplace = false

    enum WhenFull: String, ExpressibleByArgument, CaseIterable {
        case stop
        case `continue`
    }

    @Option(
        help: ArgumentHelp(
            "At that limit: stop, or continue without a way back (default: stop).",
            valueName: "what"))
    var undoFull: WhenFull?

    func validate() throws {
        if undo == nil {
            if undoLimit != nil { throw ValidationError("--undo-limit goes with --undo") }
            if undoReplace { throw ValidationError("--undo-replace goes with --undo") }
            if undoFull != nil { throw ValidationError("--undo-full goes with --undo") }
        }
        if undoFull != nil && undoLimit == nil {
            throw ValidationError("--undo-full goes with --undo-limit")
        }
        if undo == "" { throw ValidationError("--undo: a file is missing") }
    }

    func validate(_ common: ComparisonOptions) throws {
        if undo != nil, try common.operands.target.remote != nil {
            throw ValidationError(
                "--undo: TARGET must be on this machine; run blkferry there, and pull")
        }
    }

    func apply(to options: inout Replication.Options) {
        guard let undo else { return }
        var journal = Replication.Undo(journal: undo)
        journal.limit = undoLimit?.bytes
        journal.continuesWhenFull = undoFull == .continue
        journal.replaces = undoReplace
        options.undo = journal
    }
}
