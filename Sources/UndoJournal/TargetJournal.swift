// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices
package import DeviceProbe
internal import Glibc
package import LinuxIO
internal import SystemPackage
internal import WireProtocol

/// What a run wants of its journal.
package struct JournalOrder: Sendable {
    package var path: String
    /// What leads to it in this process; `nil` for the path.
    package var opened: String?
    /// Bytes of the journal at most; `nil` for no limit.
    package var limit: Int?
    package var whenFull = JournalWriter.WhenFull.stop
    /// Whether the path may be an older journal of the target, of a run that succeeded.
    package var replaces = false

    package init(path: String) { self.path = path }
}

/// What a run reports of its journal.
package struct JournalReport: Codable, Hashable, Sendable {
    package var journal: String
    /// Of the journal.
    package var bytes: Int
    /// `false` if the run went on when the journal had reached its limit.
    package var usable: Bool
}

/// The undo journal of a run whose target is on this machine.
package struct TargetJournal: Sendable {
    private let writer: JournalWriter?
    private let target: any BlockDevice
    /// Why there is no journal although the run wants one; `nil` if there is one.
    private let reasonForNone: String?
    /// The target, whose old bytes are in the journal before they are overwritten.
    package let device: any BlockDevice

    /// Creates the journal of an admitted target.
    ///
    /// - Parameters:
    ///   - order: `nil` for no journal; then the first write makes the journals of earlier runs
    ///     unusable.
    ///   - name: leads to the target later: a tag or an absolute path.
    ///   - source: for the user.
    /// - Throws: a refusal if a journal cannot be made there.
    package init(
        _ order: JournalOrder?, of target: AdmittedTarget, named name: String,
        from source: String, _ latest: LatestJournals = LatestJournals()
    ) throws(IOError) {
        self.target = target.device
        let identity = target.device.fileStatus.flatMap { TargetIdentity($0) }
        // Of a disk the partitions, of a partition the disk, and of a loop device its image.
        let related =
            target.relatives.compactMap { TargetIdentity(at: $0) } + (identity?.aliases ?? [])
        let touched = related.filter { latest.hasJournals($0) }
        let noteRelated = { @Sendable () throws(IOError) in
            for other in touched {
                try latest.note(.init(began: time(nil)), on: other, named: name)
            }
        }
        let isNewVolume = target.wasCreated && target.kind == .blockDevice
        reasonForNone =
            order != nil && isNewVolume
            ? "\(name): the run creates it, so there is no undo journal; lvremove undoes the run"
            : nil
        guard let order, !isNewVolume else {
            writer = nil
            let isTouched = identity.map { latest.hasJournals($0) } ?? false
            guard isTouched || !touched.isEmpty else {
                device = target.device
                return
            }
            device = JournaledDevice(target.device) { () throws(IOError) in
                try noteRelated()
                guard isTouched, let identity else { return }
                try latest.note(.init(began: time(nil)), on: identity, named: name)
            }
            return
        }
        guard let identity else {
            throw .refusal(.wrongKind, name, "it has no identity, so no undo journal can be made")
        }
        var header = JournalHeader(
            target: name, source: source, size: target.sizeBefore,
            isImage: target.kind == .image, began: time(nil))
        header.isNew = target.wasCreated
        header.identity = identity
        let replaced = try order.replaces ? Self.replaced(order.path, identity, latest) : nil
        let place =
            replaced.map { JournalPlace(replacing: $0) }
            ?? JournalPlace(path: order.path, opened: order.opened)
        let path = (try? canonicalPath(order.path)) ?? absolute(order.path)
        let run = Guarded<LatestJournal.Run?>(nil)
        let writer = try JournalWriter(
            creating: place, header, limit: order.limit, whenFull: order.whenFull
        ) { () throws(IOError) in
            try noteRelated()
            guard let run = run.withLock({ $0 }) else { return }
            try latest.note(run, on: identity, named: name)
        }
        let entry = LatestJournal.Run(
            journal: hexadecimal(writer.identifier), path: path,
            replaces: replaced.map { hexadecimal($0.identifier) }, began: header.began)
        run.withLock { $0 = entry }
        self.writer = writer
        device = JournaledDevice(target.device, writer)
        guard target.wasCreated else { return }
        do throws(IOError) { try writer.saveSize(0) } catch {
            writer.remove()
            throw error
        }
    }

    /// The journal that a new one may replace; `nil` if there is none.
    private static func replaced(
        _ path: String, _ target: TargetIdentity, _ latest: LatestJournals
    ) throws(IOError) -> JournalReader? {
        guard FileStatus.exists(path) else { return nil }
        let journal = try JournalReader(path)
        let content = try journal.content { false }
        guard let identity = journal.header.identity, identity.relation(to: target) == .same else {
            throw .refusal(
                .changed, path,
                "it is the undo journal of another target, "
                    + "\(journal.header.target)", advice: "Name another file.")
        }
        let isDone = content.end?.isComplete == true && !content.isRollingBack
        guard content.isRolledBack || isDone else {
            throw .refusal(
                .changed, path,
                "its run or its rollback did not succeed, so that it may be the only way back",
                advice: "Roll that run back (blkferry rollback), or name another file.")
        }
        return journal
    }

    /// Ends the journal of a run; one of a target that is what it was is removed.
    ///
    /// - Returns: what the run reports of it, and a warning.
    package func finish(isComplete: Bool) -> (JournalReport?, warning: String?) {
        guard let writer else { return (nil, reasonForNone) }
        let report =
            writer.isEmpty
            ? nil
            : JournalReport(
                journal: writer.path, bytes: writer.size, usable: !writer.isAbandoned)
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

    /// The report so far; `nil` without a journal, or if nothing was overwritten.
    package var report: JournalReport? {
        guard let writer, !writer.isEmpty else { return nil }
        return JournalReport(
            journal: writer.path, bytes: writer.size, usable: !writer.isAbandoned)
    }
}

/// A name that leads to a target of this machine later.
///
/// A tag that depends on the partition table or on LVM does; the path of a disk may lead to another
/// one, which its identity shows.
package func lastingName(of selector: Selector) throws(IOError) -> String {
    let path = try resolve(selector)
    let tag = try describe(path: path, as: path).stableTag
    if let tag, tag.hasPrefix("LVUUID=") || tag.hasPrefix("PARTUUID=") { return tag }
    return (try? canonicalPath(path)) ?? path
}

private func absolute(_ path: String) -> String {
    let parent = FilePath(path).removingLastComponent().string
    let directory = (try? canonicalPath(parent.isEmpty ? "." : parent)) ?? parent
    return "\(directory)/\(FilePath(path).lastComponent?.string ?? path)"
}
