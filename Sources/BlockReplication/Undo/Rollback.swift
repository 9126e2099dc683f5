// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import DeviceProbe
internal import Glibc
internal import LinuxIO
internal import SystemPackage
internal import UndoJournal
internal import WireProtocol

/// Makes a target byte for byte what it was before a run with an undo journal.
///
/// It may be interrupted, and run again.
package struct Rollback: Sendable {
    package struct Report: Hashable, Sendable {
        /// As the user or the journal names it.
        package var target: String
        /// Bytes that were written, and zeroed.
        package var written = 0
        package var zeroed = 0
        /// Whether an earlier rollback had done everything.
        package var wasDone = false
        /// Whether the target is removed again, because the run had created it.
        package var wasRemoved = false
        package var warnings: [String] = []
    }

    private let journal: JournalReader
    private let target: Location
    private let overwrites: Bool
    private let isCancelled: @Sendable () -> Bool

    /// Opens the journal.
    ///
    /// - Parameters:
    ///   - target: `nil` for the one that the journal names.
    ///   - overwrites: accepts another target than the journal's, and one to which other programs
    ///     have written since.
    package init(
        _ journal: String, target: String?, overwrites: Bool,
        isCancelled: @escaping @Sendable () -> Bool
    ) throws(ReplicationError) {
        do throws(IOError) { self.journal = try JournalReader(journal) } catch {
            throw ReplicationError(error)
        }
        let name = target ?? self.journal.header.target
        do throws(WireError) { self.target = try Location.parsed(name).get() } catch {
            throw ReplicationError(.invalid, error.reason)
        }
        self.overwrites = overwrites
        self.isCancelled = isCancelled
    }

    package func run() throws(ReplicationError) -> Report {
        guard case .local(let selector) = target else {
            throw ReplicationError(
                .invalid, "\(target): has to be a device of this machine",
                advice: "Roll back on the machine that has the journal.")
        }
        do throws(IOError) { return try run(selector) } catch { throw ReplicationError(error) }
    }

    private func run(_ selector: Selector) throws(IOError) -> Report {
        var report = Report(target: "\(target)")
        let content = try journal.content(unless: isCancelled)
        if content.isRolledBack {
            report.wasDone = true
            return report
        }
        let header = journal.header
        if header.isImage, try isGone(selector) {
            // An earlier rollback was interrupted after it had removed what the run had created.
            guard header.isNew else { throw IOError("\(target)", "open", .noSuchFileOrDirectory) }
            try journal.finish(content)
            report.wasRemoved = true
            return report
        }
        let admitted = try admit(selector)
        let device = admitted.device
        try checkIdentity(of: device, selector)
        try checkWriters(of: device, content, &report)
        if header.isImage, device.geometry.size != header.size {
            try device.resize(to: header.size)
        }
        try journal.replay(content) { range, bytes throws(IOError) in
            if isCancelled() { throw cancelled }
            // What the run had added behind the old end is cut off.
            let end = min(range.end, header.size)
            guard range.offset < end else { return }
            let length = end - range.offset
            if let bytes {
                try device.write(slice(bytes, 0, length), at: range.offset)
                report.written += length
            } else {
                try device.zero(ByteRange(offset: range.offset, length: length))
                report.zeroed += length
            }
        }
        try device.flush()
        try device.checkIdentity()
        if header.isNew {
            try remove(device)
            report.wasRemoved = true
        }
        try journal.finish(content)
        updateCaches(admitted, &report)
        if device.geometry.size > header.size, !header.isNew {
            report.warnings.append(
                "\(target): has \(device.geometry.size) bytes in place of \(header.size); what is "
                    + "behind them was not touched")
        }
        return report
    }

    private func isGone(_ selector: Selector) throws(IOError) -> Bool {
        guard case .path(let path) = selector else { return false }
        do throws(Errno) { _ = try FileStatus(path: path) } catch .noSuchFileOrDirectory {
            return true
        } catch {
            throw IOError(path, "open", error)
        }
        return false
    }

    /// The content of a target between two states says nothing, so only its use counts.
    private func admit(_ selector: Selector) throws(IOError) -> AdmittedTarget {
        let header = journal.header
        var facts = SourceFacts(
            name: journal.path, size: header.size, content: .empty, logicalSector: nil,
            identity: nil)
        if let status = try? FileStatus(path: journal.path) {
            facts.identity = DeviceIdentity(status, path: journal.path)
        }
        return try SafetyGate.admit(
            selector, source: facts,
            policy: GatePolicy(sizePolicy: header.isImage ? nil : .prefix, overwrite: true))
    }

    private func checkIdentity(
        of device: any BlockDevice, _ selector: Selector
    ) throws(IOError) {
        let header = journal.header
        let now = try JournalHeader.of(
            device, isImage: device.isImage, of: selector, source: header.source,
            size: header.size, isNew: header.isNew)
        let isOther =
            header.isImage
            ? now.inode != header.inode || now.born != header.born || !now.isImage
            : now.target != header.target
        guard isOther, !overwrites else { return }
        throw .refusal(
            .changed, "\(target)", "it is not the device of the journal, \(header.target)",
            advice: "If it is, --overwrite writes the old bytes to it.")
    }

    private func checkWriters(
        of device: any BlockDevice, _ content: JournalReader.Content, _ report: inout Report
    ) throws(IOError) {
        // A run that was cut off leaves no counter.
        guard let counter = content.end?.counter, journal.header.boot == bootIdentifier(),
            let now = device.persistentChangeCounter()
        else {
            report.warnings.append(
                "\(target): it is unknown whether other programs have written to it since")
            return
        }
        guard !now.equivalents.contains(counter), !overwrites else { return }
        throw .refusal(
            .changed, "\(target)", "another program has written to it since the run",
            advice: "--overwrite writes the old bytes all the same; what others wrote elsewhere "
                + "stays.")
    }

    private func remove(_ device: any BlockDevice) throws(IOError) {
        let path = device.name
        do throws(Errno) { _ = try retryingInterrupts { unlink(path) } } catch {
            throw IOError("\(target)", "remove", error)
        }
    }

    private func updateCaches(_ admitted: AdmittedTarget, _ report: inout Report) {
        for relative in admitted.relatives {
            BlockSpecialFile.writeBackCache(of: relative, dropping: true)
        }
        let update = KernelPartitions.update(admitted.device, wasWritten: true)
        if let warning = update.warning { report.warnings.append(warning) }
    }

    private var cancelled: IOError {
        var error = IOError("\(target)", "roll back", reason: "interrupted, incomplete")
        error.kind = .cancelled
        error.advice = "A second rollback finishes the job."
        return error
    }
}
