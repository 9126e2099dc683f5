// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockReplication
internal import DeviceProbe

/// The journal of a run, as `--json` prints it.
struct UndoResult: Encodable {
    private var journal: String
    /// Of the journal.
    private var bytes: Int
    /// Whether a rollback is possible.
    private var usable: Bool
    /// Whether the journal is on the server.
    private var server: Bool?

    init(_ undo: Replication.Report.Undo) {
        journal = undo.journal
        bytes = undo.bytes
        usable = undo.isUsable
        server = undo.isOnServer ? true : nil
    }
}

extension Replication.Report.Undo {
    /// For a person.
    var line: String {
        isUsable
            ? "undo        \(Format.exactBytes(bytes)) in \(printable(journal))"
                + (isOnServer ? ", on the server" : "")
            : "undo        impossible: \(printable(journal)) had reached its limit"
    }
}
