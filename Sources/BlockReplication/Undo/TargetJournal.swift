// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import DeviceProbe
internal import Glibc
internal import LinuxIO
internal import SyncEngine
internal import UndoJournal
internal import WireProtocol

/// The undo journal of a run whose target is on this machine.
struct TargetJournal: Sendable {
    private let writer: JournalWriter
    private let target: any BlockDevice
    /// The target, whose old bytes are in the journal before they are overwritten.
    let device: any BlockDevice

    /// Refuses a journal that cannot be used, before anything is opened.
    static func check(
        _ options: Replication.Options, _ operands: Operands
    ) throws(ReplicationError) {
        guard let undo = options.undo else { return }
        guard case .local(let selector) = operands.target else {
            throw ReplicationError(
                .invalid, "\(operands.target): an undo journal needs a target on this machine",
                advice: "Run blkferry on the machine of the target, and pull.")
        }
        do throws(IOError) {
            try SafetyGate.checkJournal(undo.journal, of: selector)
            guard (try? FileStatus(path: undo.journal)) == nil else {
                throw JournalWriter.exists(undo.journal)
            }
        } catch {
            throw ReplicationError(error)
        }
    }

    /// Creates the journal of an admitted target.
    init(
        _ undo: Replication.Undo, _ operands: Operands, _ target: AdmittedTarget
    ) throws(IOError) {
        guard case .local(let selector) = operands.target else {
            preconditionFailure("a journal's target is on this machine")
        }
        let header = try JournalHeader.of(
            target.device, isImage: target.kind == .image, of: selector,
            source: "\(operands.source)", size: target.sizeBefore, isNew: target.wasCreated)
        writer = try JournalWriter(
            creating: undo.journal, header, limit: undo.limit,
            whenFull: undo.continuesWhenFull ? .continue : .stop)
        self.target = target.device
        device = JournaledDevice(target.device, writer)
    }

    /// Ends the journal of a run; one without old bytes is removed.
    ///
    /// - Returns: what the run reports of it, and a warning.
    func finish(isComplete: Bool) -> (Replication.Report.Undo?, warning: String?) {
        let report =
            writer.isEmpty
            ? nil
            : Replication.Report.Undo(
                journal: writer.path, bytes: writer.size, isUsable: !writer.isAbandoned)
        do throws(IOError) {
            try writer.finish(
                JournalEnd(
                    isComplete: isComplete, counter: target.persistentChangeCounter()?.marks))
            return (report, nil)
        } catch {
            // Without its end it can be used as that of a run that was cut off.
            return (report, error.description)
        }
    }
}

extension JournalHeader {
    static func of(
        _ device: any BlockDevice, isImage: Bool, of selector: Selector, source: String,
        size: Int, isNew: Bool
    ) throws(IOError) -> JournalHeader {
        var header = JournalHeader(
            target: try LocalEndpoint.stableName(of: selector), source: source, size: size,
            isImage: isImage,
            began: time(nil))
        header.isNew = isNew
        header.boot = bootIdentifier()
        if isImage {
            header.inode = device.fileStatus?.inode
            header.born = device.fileStatus?.born
        }
        return header
    }
}
