// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import DeviceProbe
internal import LinuxIO
internal import SystemPackage
internal import UndoJournal
internal import WireProtocol

extension Replication {
    /// A journal with the old bytes of the target, from which `rollBack` makes it what it was.
    public struct Undo: Hashable, Sendable {
        /// A file that does not exist, on another device than the target.
        public var journal: String
        /// Whether it may be an older journal of the target, from a run that has succeeded; it is
        /// replaced before the first write.
        public var replaces = false
        /// Bytes of the journal at most; `nil` for no limit.
        public var limit: Int?
        /// Whether the run goes on without a way back when the limit is reached; it ends otherwise.
        public var continuesWhenFull = false

        public init(journal: String) { self.journal = journal }
    }
}

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

extension Replication.Report.Undo {
    init(_ report: JournalReport) {
        self.init(journal: report.journal, bytes: report.bytes, isUsable: report.usable)
    }
}

extension TargetJournal {
    /// The journal of a target on this machine; `nil` for one on a server.
    ///
    /// Without an order it only notes that the run writes, which makes older journals unusable.
    ///
    /// - Throws: if the run must not begin.
    static func of(
        _ target: AdmittedTarget, _ operands: Operands, _ undo: Replication.Undo?
    ) throws(IOError) -> TargetJournal? {
        guard case .local(let selector) = operands.target else { return nil }
        return try TargetJournal(
            undo?.order, of: target,
            named: undo == nil ? "\(selector)" : lastingName(of: selector),
            from: "\(operands.source)",
            LatestJournals(
                besides: undo.map { FilePath($0.journal).removingLastComponent().string }))
    }
}
