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
        package var warnings: [String] = []
    }

    let journal: JournalReader
    let target: Location
    /// Whether the user has named the target.
    let isNamed: Bool
    let overwrites: Bool
    let latest: LatestJournals
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
        if content.isRolledBack {
            // An earlier rollback may have been interrupted at its very end.
            try forgetRun(counter: nil)
            report.wasDone = true
            return report
        }
        let header = journal.header
        if header.isImage, try isGone(selector) {
            // An earlier rollback was interrupted after it had removed what the run had created.
            guard header.isNew else { throw IOError("\(target)", "open", .noSuchFileOrDirectory) }
            try journal.finish(content)
            try forgetRun(counter: nil)
            report.wasRemoved = true
            return report
        }
        let admitted = try admit(found(selector))
        let device = admitted.device
        let identity = try checkIdentity(of: device)
        try checkRuns(on: identity, device, content, &report)
        try checkTorn(content, on: device)
        try journal.begin(&content)
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
        try journal.finish(content)
        let counter = header.isNew ? nil : device.persistentChangeCounter()?.marks
        try latest.drop(identifier, of: identity, counter: counter)
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
                // The run, or somebody, has cut it.
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
