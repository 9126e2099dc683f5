// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// Rollbacks that would lose a way back, or obey somebody else.
@Suite(.blocking, .timeLimit(.minutes(60))) struct UndoTrustTests {
    private let rig: UndoRig

    init() throws { rig = try UndoRig() }

    private func undo(_ options: String...) throws -> ProgramResult {
        try RunningProgram(
            [program, "--overwrite", "--undo", rig.journal] + options + [rig.source, rig.target],
            environment: rig.environment
        ).wait()
    }

    @Test func `a rollback onto a copy leaves the journal for its own target`() throws {
        let before = try rig.copy(of: rig.target)
        #expect(try undo().status == 0)
        let other = rig.scratch.file("other")
        try must("cp", rig.target, other)
        let forced = try rig.blkferry("rollback", "--overwrite", rig.journal, other)
        #expect(forced.status == 0, "\(forced)")
        #expect(try areEqual(before, other))
        #expect(try areEqual(rig.source, rig.target))
        let back = try rig.blkferry("rollback", rig.journal)
        #expect(back.status == 0, "\(back)")
        #expect(try areEqual(before, rig.target))
        // And the other way round.
        try must("cp", rig.source, other)
        let again = try rig.blkferry("rollback", "--overwrite", rig.journal, other)
        #expect(again.status == 0 && !again.output.contains("rolled back before"), "\(again)")
        #expect(try areEqual(before, other))
        #expect(try rig.blkferry("rollback", rig.journal, other).status == 2)
        let own = try rig.blkferry("rollback", rig.journal, rig.target)
        #expect(own.status == 0 && own.output.contains("rolled back before"), "\(own)")
    }

    @Test func `the journal of a rollback that was killed is not replaced`() throws {
        let before = try rig.copy(of: rig.target)
        #expect(try undo().status == 0)
        let killed = try rig.disturbed("pwrite64", "signal=SIGKILL:when=4", "rollback", rig.journal)
        #expect(killed.status != 0)
        let refused = try undo("--undo-replace")
        #expect(refused.status == 2 && refused.errors.contains("did not succeed"), "\(refused)")
        #expect(try rig.blkferry("rollback", rig.journal).status == 0)
        #expect(try areEqual(before, rig.target))
        // Rolled back completely, it is not needed any more.
        let replaced = try undo("--undo-replace")
        #expect(replaced.status == 0, "\(replaced)")
    }

    @Test func `a file beside a journal that is replaced stays`() throws {
        let foreign = rig.journal + ".new"
        try must("cp", rig.source, foreign)
        #expect(try undo().status == 0)
        try overwrite(rig.target, [1, 2, 3], at: 5000)
        let replaced = try undo("--undo-replace")
        #expect(replaced.status == 0, "\(replaced)")
        #expect(try areEqual(rig.source, foreign))
        let names = try FileManager.default.contentsOfDirectory(atPath: rig.memory.path)
        #expect(Set(names) == ["undo", "undo.new"])
    }

    @Test func `a new image that is not there is not taken for a removed one`() throws {
        let new = rig.scratch.file("new")
        #expect(try rig.blkferry("--undo", rig.journal, rig.source, new).status == 0)
        // As if its file system were not mounted.
        let hidden = rig.scratch.file("hidden")
        try must("mv", new, hidden)
        let missing = try rig.blkferry("rollback", rig.journal)
        #expect(missing.status == 3 && missing.errors.contains("No such file"), "\(missing)")
        try must("mv", hidden, new)
        // Moving it has changed its time of change.
        let back = try rig.blkferry("rollback", "--overwrite", rig.journal)
        #expect(back.status == 0 && back.output.contains("removed"), "\(back)")
        #expect(!FileManager.default.fileExists(atPath: new))
    }

    @Test func `a journal that others can write needs a named target`() throws {
        let before = try rig.copy(of: rig.target)
        #expect(try undo().status == 0)
        try must("chmod", "666", rig.journal)
        let refused = try rig.blkferry("rollback", rig.journal)
        #expect(refused.status == 2 && refused.errors.contains("another user"), "\(refused)")
        #expect(try areEqual(rig.source, rig.target))
        let back = try rig.blkferry("rollback", rig.journal, rig.target)
        #expect(back.status == 0, "\(back)")
        #expect(try areEqual(before, rig.target))
    }

    @Test func `a journal in a directory that others can write removes no file`() throws {
        let new = rig.scratch.file("new")
        #expect(try rig.blkferry("--undo", rig.journal, rig.source, new).status == 0)
        try must("chmod", "777", rig.memory.path)
        #expect(try rig.blkferry("rollback", rig.journal).status == 2)
        let named = try rig.blkferry("rollback", rig.journal, new)
        #expect(named.status == 2 && named.errors.contains("has created"), "\(named)")
        #expect(try areEqual(rig.source, new))
        // As in /var/tmp, where nobody can put another file in its place.
        try must("chmod", "1777", rig.memory.path)
        let back = try rig.blkferry("rollback", rig.journal)
        #expect(back.status == 0 && back.output.contains("removed"), "\(back)")
    }

    @Test(.enabled(if: isRoot, "needs root")) func `another user's journal needs a named target`()
        throws
    {
        #expect(try undo().status == 0)
        try must("chown", "nobody", rig.journal)
        let refused = try rig.blkferry("rollback", rig.journal)
        #expect(refused.status == 2 && refused.errors.contains("another user"), "\(refused)")
        #expect(try rig.blkferry("rollback", rig.journal, rig.target).status == 0)
    }

    @Test func `a run that was killed before its first write needs no rollback`() throws {
        let killed = try rig.disturbed(
            "fdatasync", "signal=SIGKILL:when=1", of: rig.journal, "--overwrite", "--undo",
            rig.journal, rig.source, rig.target)
        #expect(killed.status != 0)
        // What was not flushed is lost in a power cut.
        try must("truncate", "-s", "12288", rig.journal)
        try overwrite(rig.target, [1, 2, 3], at: 5000)
        let before = try rig.copy(of: rig.target)
        let back = try rig.blkferry("rollback", rig.journal)
        #expect(back.status == 0 && back.output.contains("had written nothing"), "\(back)")
        #expect(try areEqual(before, rig.target))
    }

    @Test func `a limit below the first record leaves no journal, and says so`() throws {
        let before = try rig.copy(of: rig.target)
        let run = try undo("--undo-limit", "1")
        #expect(run.status == 3 && run.errors.contains("Nothing was written"), "\(run)")
        #expect(!run.errors.contains("blkferry rollback"))
        #expect(!FileManager.default.fileExists(atPath: rig.journal))
        #expect(try areEqual(before, rig.target))
    }
}
