// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import DeviceProbe
internal import LinuxIO
internal import UndoJournal
internal import WireProtocol

extension Replication.Options {
    /// Refuses a journal that cannot be used, before anything is opened.
    func checkJournal(_ operands: Operands) throws(ReplicationError) {
        guard let undo else { return }
        guard case .local(let selector) = operands.target else {
            throw ReplicationError(
                .invalid, "\(operands.target): an undo journal needs a target on this machine",
                advice: "Run blkferry on the machine of the target, and pull.")
        }
        do throws(IOError) {
            try SafetyGate.checkJournal(undo.journal, of: selector)
            guard undo.replaces || !FileStatus.exists(undo.journal) else {
                throw JournalPlace.exists(undo.journal)
            }
        } catch {
            throw ReplicationError(error)
        }
    }
}

extension Replication.Undo {
    var order: JournalOrder {
        var order = JournalOrder(path: journal)
        order.limit = limit
        order.whenFull = continuesWhenFull ? .continue : .stop
        order.replaces = replaces
        return order
    }
}
