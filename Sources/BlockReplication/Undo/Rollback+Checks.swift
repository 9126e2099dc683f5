// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import DeviceProbe
internal import Digests
internal import LinuxIO
internal import SystemPackage
internal import UndoJournal

extension JournalHeader {
    /// Whether the target is a logical volume, which may have got another size.
    var isVolume: Bool { identity?.facts.first?.hasPrefix("LVUUID=") == true }
}

/// What a rollback must know of its target before the first write.
extension Rollback {
    /// Refuses another device than the journal's, and one that may be another, unless the user
    /// names it and accepts that.
    ///
    /// - Returns: also whether it is the journal's own.
    func checkIdentity(
        of device: any BlockDevice
    ) throws(IOError) -> (TargetIdentity, isOwn: Bool) {
        let header = journal.header
        guard let now = device.fileStatus.flatMap({ TargetIdentity($0) }) else {
            throw .refusal(.changed, "\(target)", "it has no identity")
        }
        var relation = header.identity?.relation(to: now) ?? .unknown
        let hasOwnSize = header.isImage || header.isVolume || device.geometry.size == header.size
        if device.isImage != header.isImage || !hasOwnSize { relation = .other }
        if relation == .same || overwrites && isNamed { return (now, relation == .same) }
        throw .refusal(
            .changed, "\(target)",
            relation == .other
                ? "it is not the device of the journal, \(header.target)"
                : "nothing proves that it is the device of the journal, \(header.target)",
            advice: "If it has to get the old bytes, name it as TARGET, and say --overwrite.")
    }

    /// Refuses a target to which a later run or another program has written.
    func checkRuns(
        on identity: TargetIdentity, _ device: any BlockDevice, _ content: JournalReader.Content,
        _ report: inout Report
    ) throws(IOError) {
        var runs: [LatestJournal.Run] = []
        do throws(IOError) { runs = try latest.of(identity)?.runs ?? [] } catch {
            guard overwrites else {
                var error = error
                error.kind = .refused(.changed)
                throw error
            }
        }
        let isKnown = runs.contains { $0.journal == identifier }
        if isKnown, content.records == 0 { throw journal.damaged("it has no records") }
        if let last = runs.last, last.journal != identifier, !isDraft(last), !overwrites {
            // Of a run that was cut off before its first write, nothing is known.
            let isFirst = content.records == 0 && last.began <= journal.header.began
            guard isFirst else { throw laterRun(last) }
        }
        try checkCounter(of: device, content, runs.last { $0.journal == identifier }, &report)
    }

    /// Whether a later run was cut off before its journal took the place of this one, and so before
    /// its first write.
    private func isDraft(_ run: LatestJournal.Run) -> Bool {
        run.replaces == identifier && run.path == (try? canonicalPath(journal.path))
    }

    private func laterRun(_ run: LatestJournal.Run) -> IOError {
        let force =
            "--overwrite writes the old bytes all the same; what the later run wrote "
            + "elsewhere stays."
        guard let path = run.path else {
            return .refusal(
                .changed, "\(target)", "a later run without an undo journal has written to it",
                advice: force)
        }
        return .refusal(
            .changed, "\(target)", "a later run has written to it",
            advice: "Roll that run back first: blkferry rollback \(path)")
    }

    private func checkCounter(
        of device: any BlockDevice, _ content: JournalReader.Content, _ run: LatestJournal.Run?,
        _ report: inout Report
    ) throws(IOError) {
        var (counter, boot) = (content.end?.counter, journal.header.boot)
        if let run, run.isBack { (counter, boot) = (run.counter, run.boot) }
        // A run or a rollback that was cut off leaves no counter.
        guard let counter, boot == bootIdentifier(), !content.isRollingBack,
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

    /// Refuses a journal whose last records are damaged: a torn record was not on the medium when
    /// the power was cut, so that the run had not written there yet.
    func checkTorn(
        _ content: JournalReader.Content, on device: any BlockDevice
    ) throws(IOError) {
        for record in content.torn where record.range.offset < journal.header.size {
            let range = record.range
            if range.isEmpty { continue }
            guard try isUntouched(record, on: device) else {
                throw journal.damaged(
                    "the old bytes at \(range.offset) of \(target), which the run has overwritten")
            }
        }
    }

    private func isUntouched(
        _ record: JournalRecord, on device: any BlockDevice
    ) throws(IOError) -> Bool {
        let size = device.geometry.size
        let range = record.range
        switch record.kind {
        case .data:
            guard range.end <= size else { return false }
            return try record.holds(device.bytes(of: range))
        case .zeros:
            // Whatever is behind the end is cut off, and comes back as zeros.
            let end = min(range.end, size)
            for piece in ByteRange(min(range.offset, end), to: end).pieces(of: 1 << 20) {
                guard try device.bytes(of: piece).allSatisfy({ $0 == 0 }) else { return false }
            }
            return true
        case .end, .rolledBack, .growth, .rollback: return true
        }
    }
}
