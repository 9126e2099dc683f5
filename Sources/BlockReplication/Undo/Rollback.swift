// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import DeviceProbe
internal import Glibc
internal import LinuxIO
internal import LogicalVolumes
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
        /// Whether the run was cut off before its first write, so that there is nothing to do.
        package var wasEmpty = false
        package var warnings: [String] = []
    }

    let journal: JournalReader
    let target: Location
    /// Whether the user has named the target.
    let isNamed: Bool
    let overwrites: Bool
    let latest: LatestJournals
    /// Whether another user may have made the journal up.
    private let isForeign: Bool
    private let isCancelled: @Sendable () -> Bool

    /// Opens the journal.
    ///
    /// - Parameters:
    ///   - target: `nil` for the one that the journal names.
    ///   - overwrites: accepts a target to which other programs have written since, and, if it is
    ///     named, another target than the journal's.
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
        isNamed = target != nil
        isForeign = !self.journal.isTrusted
        if isForeign, target == nil {
            throw ReplicationError(
                IOError.refusal(
                    .changed, journal,
                    "another user made it or can change it, so it may lead to a wrong target",
                    advice: "Name the target: blkferry rollback \(journal) TARGET"))
        }
        self.overwrites = overwrites
        self.isCancelled = isCancelled
        latest = LatestJournals(besides: FilePath(journal).removingLastComponent().string)
    }

    package func run() throws(ReplicationError) -> Report {
        guard case .local(let selector) = target else {
            throw ReplicationError(
                .invalid, "\(target): has to be a device of this machine",
                advice: "Roll back on the machine that has the journal.")
        }
        do throws(IOError) { return try run(selector) } catch { throw ReplicationError(error) }
    }

    var identifier: String { hexadecimal(journal.identifier) }

    private func run(_ selector: Selector) throws(IOError) -> Report {
        var report = Report(target: "\(target)")
        var content = try journal.content(unless: isCancelled)
        let header = journal.header
        if content.isRolledBack, mayBeOwn(selector) {
            // An earlier rollback may have been interrupted at its very end.
            try forgetRun(counter: nil)
            report.wasDone = true
            return report
        }
        if header.isImage, try isGone(selector) {
            // An earlier rollback was interrupted after it had removed what the run had created.
            guard header.isNew, content.isRollingBack, !isNamed, hasDirectory(selector) else {
                throw IOError("\(target)", "open", .noSuchFileOrDirectory)
            }
            try journal.finish(content)
            try forgetRun(counter: nil)
            report.wasRemoved = true
            return report
        }
        let admitted = try admit(found(selector))
        let device = admitted.device
        let (identity, isOwn) = try checkIdentity(of: device)
        if header.isNew, isForeign || !isOwn { throw notRemoved }
        try checkRuns(on: identity, device, content, &report)
        try checkTorn(content, on: device)
        if content.records == 0, !header.isNew || device.geometry.size > 0 {
            // Whatever the target has now is not from the run.
            if isOwn { try journal.finish(content) }
            report.wasEmpty = true
            return report
        }
        if isOwn {
            try journal.begin(&content)
        } else {
            // The journal stays as it is, for its own target.
            try latest.noteWithoutJournal(on: identity, named: "\(target)")
        }
        if device.geometry.size < header.size || header.isImage {
            if device.geometry.size != header.size { try device.resize(to: header.size) }
        }
        try replay(content, on: device, &report)
        try device.flush()
        try device.checkIdentity()
        if header.isNew {
            try remove(device)
            report.wasRemoved = true
        }
        if isOwn {
            try journal.finish(content)
            let counter = header.isNew ? nil : device.persistentChangeCounter()?.marks
            try latest.drop(identifier, of: identity, counter: counter)
        }
        updateCaches(admitted, &report)
        if device.geometry.size > header.size, !header.isNew {
            report.warnings.append(
                "\(target): has \(device.geometry.size) bytes in place of \(header.size); what is "
                    + "behind them was not touched")
        }
        return report
    }

    private func replay(
        _ content: JournalReader.Content, on device: any BlockDevice, _ report: inout Report
    ) throws(IOError) {
        let size = journal.header.size
        try journal.replay(content) { range, bytes throws(IOError) in
            if isCancelled() { throw cancelled }
            // What the run had added behind the old end is cut off.
            let end = min(range.end, size)
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
    }

    /// Makes the run before this one the last that has written, if this one was.
    private func forgetRun(counter: [Int]?) throws(IOError) {
        guard let identity = journal.header.identity,
            try latest.of(identity)?.runs.last?.journal == identifier
        else { return }
        try latest.drop(identifier, of: identity, counter: counter)
    }

    /// Whether the target is the journal's, as far as its name tells; one that is gone may be.
    private func mayBeOwn(_ selector: Selector) -> Bool {
        guard isNamed else { return true }
        guard let path = try? resolve(selector), let now = TargetIdentity(at: path) else {
            return journal.header.isNew
        }
        return journal.header.identity?.relation(to: now) == .same
    }

    /// The refusal to remove another file than the one that the run has created.
    private var notRemoved: IOError {
        .refusal(
            .changed, "\(target)",
            "the journal's run has created its target, and nothing proves that it is this one",
            advice: "There are no old bytes; remove the file yourself if nobody needs it.")
    }

    /// Whether the directory of a target that is gone is there, on the file system of the run.
    private func hasDirectory(_ selector: Selector) -> Bool {
        guard case .path(let path) = selector else { return false }
        let parent = FilePath(path).removingLastComponent()
        guard let status = try? FileStatus(path: parent.isEmpty ? "." : parent.string),
            status.kind == .directory
        else { return false }
        // After a restart the file system may have another number.
        guard let identity = journal.header.identity, let boot = identity.boot,
            boot == bootIdentifier()
        else { return true }
        return status.fileSystem == identity.number
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

    /// The journal's target, also if it has another path than during the run.
    private func found(_ selector: Selector) -> Selector {
        guard !isNamed, case .path(let path) = selector, let identity = journal.header.identity
        else { return selector }
        let now = TargetIdentity(at: path)
        if let now, identity.relation(to: now) == .same { return selector }
        let paths = identity.paths()
        return paths.count == 1 ? .path(paths[0]) : selector
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
        var policy = GatePolicy(overwrite: true)
        var volumes: LVMVolumeManager?
        if !header.isImage {
            policy.sizePolicy = .prefix
            let path = try resolve(selector)
            if header.isVolume, try describe(path: path, as: path).entry.size < header.size {
                // The run or another program has cut it.
                policy.sizePolicy = .resize
                volumes = LVMVolumeManager(isCancelled: isCancelled)
            }
        }
        return try SafetyGate.admit(selector, source: facts, policy: policy, volumes: volumes)
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
