// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// `--undo` and `blkferry rollback` between images; the journal is on another file system.
@Suite(.blocking, .timeLimit(.minutes(60))) struct UndoTests {
    private let rig: UndoRig

    init() throws { rig = try UndoRig() }

    private var scratch: ScratchDirectory { rig.scratch }
    private var source: String { rig.source }
    private var target: String { rig.target }
    private var journal: String { rig.journal }
    private var size: Int { rig.size }
    private var copy: String { scratch.file("copy") }

    private func blkferry(_ arguments: String...) throws -> ProgramResult {
        try RunningProgram([program] + arguments, environment: rig.environment).wait()
    }

    private func blkferryJSON(_ arguments: String...) throws -> (ProgramResult, Record) {
        let result = try RunningProgram(
            [program] + arguments + ["--json"], environment: rig.environment
        ).wait()
        let object = try JSONSerialization.jsonObject(with: Data(result.output.utf8))
        return (result, Record(try #require(object as? [String: Any])))
    }

    private func keepCopy() throws { try must("cp", "--sparse=always", target, copy) }

    @Test func `a rollback makes the target what it was before the run`() throws {
        try keepCopy()
        let (run, json) = try blkferryJSON("--overwrite", "--undo", journal, source, target)
        #expect(run.status == 0, "\(run)")
        #expect(try areEqual(source, target))
        let undo = try #require(json.record("undo"))
        #expect(undo.string("journal") == journal && undo.bool("usable") == true)
        #expect(try #require(undo.int("bytes")) < 6 << 20)
        let (back, result) = try blkferryJSON("rollback", journal)
        #expect(back.status == 0, "\(back)")
        #expect(try areEqual(copy, target))
        #expect(try #require(result.int("written")) + #require(result.int("zeroed")) == size)
        #expect(back.errors == "")
    }

    @Test func `a second rollback writes nothing`() throws {
        _ = try blkferry("--overwrite", "--undo", journal, source, target)
        #expect(try blkferry("rollback", journal).status == 0)
        try overwrite(target, [1, 2, 3], at: 5000)
        try keepCopy()
        let again = try blkferry("rollback", journal)
        #expect(again.status == 0 && again.output.contains("was rolled back before"))
        #expect(try areEqual(copy, target))
    }

    @Test func `equal devices leave no journal`() throws {
        _ = try blkferry("--overwrite", source, target)
        let (run, json) = try blkferryJSON("--undo", journal, source, target)
        #expect(run.status == 0 && json.record("undo") == nil)
        #expect(!FileManager.default.fileExists(atPath: journal))
    }

    @Test(arguments: ["3M", "9M"]) func `the size is that of before, too`(before: String) throws {
        try must("truncate", "-s", before, target)
        try overwrite(target, [9, 9, 9], at: (3 << 20) - 3)
        try keepCopy()
        #expect(try blkferry("--overwrite", "--undo", journal, source, target).status == 0)
        #expect(try areEqual(source, target))
        #expect(try blkferry("rollback", journal).status == 0)
        #expect(try areEqual(copy, target))
    }

    @Test func `what follows the replica, and is cut off, comes back`() throws {
        try must("sh", "-c", "cat \"$0\" >>\"$1\"", source, target)
        try keepCopy()
        #expect(try blkferry("--overwrite", "--undo", journal, source, target).status == 0)
        #expect(try blkferry("rollback", journal).status == 0)
        #expect(try areEqual(copy, target))
    }

    @Test func `an image that the run has created is removed`() throws {
        let new = scratch.file("new")
        #expect(try blkferry("--undo", journal, source, new).status == 0)
        #expect(try areEqual(source, new))
        let back = try blkferry("rollback", journal)
        #expect(back.status == 0 && back.output.contains("removed"), "\(back)")
        #expect(!FileManager.default.fileExists(atPath: new))
    }

    @Test(arguments: [2, 3, 5]) func `a killed run is rolled back`(flush: Int) throws {
        try keepCopy()
        let killed = try rig.disturbed(
            "fdatasync", "signal=SIGKILL:when=\(flush)", "-c", "1", "--overwrite", "--undo",
            journal, source, target)
        #expect(killed.status != 0)
        let back = try blkferry("rollback", journal)
        #expect(back.status == 0, "\(back)")
        #expect(back.errors.contains("it is unknown whether other programs"))
        #expect(try areEqual(copy, target))
    }

    @Test func `a killed rollback is finished by another one`() throws {
        try keepCopy()
        _ = try blkferry("--overwrite", "--undo", journal, source, target)
        let killed = try rig.disturbed("pwrite64", "signal=SIGKILL:when=4", "rollback", journal)
        #expect(killed.status != 0)
        #expect(try !areEqual(copy, target))
        let second = try blkferry("rollback", journal)
        #expect(second.status == 0 && second.errors.contains("it is unknown whether"), "\(second)")
        #expect(try areEqual(copy, target))
    }

    @Test func `old bytes are flushed before they are overwritten`() throws {
        let trace = scratch.file("trace")
        let run = try RunningProgram(
            [
                "strace", "-f", "-y", "-o", trace, "-e", "trace=pwrite64,fdatasync", program, "-c",
                "1", "--overwrite", "--undo", journal, source, target,
            ], environment: rig.environment
        ).wait()
        #expect(run.status == 0, "\(run)")
        var unflushed = 0
        var writes = 0
        for call in try systemCalls(inTrace: trace) {
            if call.contains("<\(journal)>") {
                unflushed += call.contains("pwrite64(") ? 1 : -unflushed
            } else if call.contains("<\(target)>"), call.contains("pwrite64(") {
                #expect(unflushed == 0, "\(call)")
                writes += 1
            }
        }
        #expect(writes > 1)
    }

    @Test func `another program's write since the run is not mixed with the old bytes`() throws {
        _ = try blkferry("--overwrite", "--undo", journal, source, target)
        try overwrite(target, [1, 2, 3], at: 5000)
        try keepCopy()
        let refused = try blkferry("rollback", journal)
        #expect(refused.status == 2, "\(refused)")
        #expect(refused.errors.contains("another program has written to it since"))
        #expect(try areEqual(copy, target))
        #expect(try blkferry("rollback", "--overwrite", journal).status == 0)
    }

    @Test func `the journal of another image is refused`() throws {
        _ = try blkferry("--overwrite", "--undo", journal, source, target)
        let other = try scratch.filledFile("other", size: size, seed: 5)
        let refused = try blkferry("rollback", journal, other)
        #expect(refused.status == 2, "\(refused)")
        #expect(refused.errors.contains("it is not the device of the journal"))
        // A file of the same name is another one as well.
        try must("mv", other, target)
        #expect(try blkferry("rollback", journal).status == 2)
    }

    @Test func `a journal beside its image is refused, and so is one that exists`() throws {
        let beside = try blkferry("--overwrite", "--undo", scratch.file("undo"), source, target)
        #expect(beside.status == 2 && beside.errors.contains("on the file system of the target"))
        try must("touch", journal)
        let exists = try blkferry("--overwrite", "--undo", journal, source, target)
        #expect(exists.status == 2 && exists.errors.contains("it exists"))
        let new = try blkferry("--undo", scratch.file("undo"), source, scratch.file("new"))
        #expect(new.status == 2)
        #expect(!FileManager.default.fileExists(atPath: scratch.file("new")))
    }

    @Test func `a target on a server, and options without --undo, are wrong usage`() throws {
        #expect(
            try blkferry("--undo", journal, source, "http://127.0.0.1:1/dev/x").status == 64)
        #expect(try blkferry("--undo-limit", "1M", source, target).status == 64)
        #expect(
            try blkferry("--undo", journal, "--undo-full", "stop", source, target).status == 64)
        #expect(try blkferry("rollback").status == 64)
        #expect(try blkferry("rollback", source).status == 2)
        #expect(try blkferry("rollback", scratch.file("none")).status == 3)
    }

    @Test func `at the limit the run ends with 3, and can be rolled back`() throws {
        try keepCopy()
        let run = try blkferry(
            "--overwrite", "--undo", journal, "--undo-limit", "2M", source, target)
        #expect(run.status == 3, "\(run)")
        #expect(run.errors.contains("reached its limit") && run.errors.contains("rollback"))
        #expect(try blkferry("rollback", journal).status == 0)
        #expect(try areEqual(copy, target))
    }

    @Test func `a run that continues at the limit says that there is no way back`() throws {
        let (run, json) = try blkferryJSON(
            "--overwrite", "--undo", journal, "--undo-limit", "2M", "--undo-full", "continue",
            source, target)
        #expect(run.status == 0, "\(run)")
        #expect(json.record("undo")?.bool("usable") == false)
        #expect(try areEqual(source, target))
        let refused = try blkferry("rollback", journal)
        #expect(refused.status == 2 && refused.errors.contains("incomplete"))
        #expect(try areEqual(source, target))
    }

    @Test(.enabled(if: isRoot, "needs root")) func `a full disk of the journal ends the run`()
        throws
    {
        try keepCopy()
        let small = scratch.file("small")
        try must("mkdir", small)
        try must("mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", small)
        defer { _ = try? must("umount", small) }
        let run = try blkferry("--overwrite", "--undo", small + "/undo", source, target)
        #expect(run.status == 3, "\(run)")
        #expect(run.errors.contains("No space left"))
        let back = try blkferry("rollback", small + "/undo")
        #expect(back.status == 0, "\(back)")
        #expect(try areEqual(copy, target))
    }
}

/// The same on block devices.
@Suite(.blocking, .enabled(if: isRoot, "loop devices need root"), .timeLimit(.minutes(60)))
struct DeviceUndoTests {
    private let size = 16 << 20
    private let state: ScratchDirectory

    init() throws { state = try ScratchDirectory() }

    /// The program, with a state directory of this test.
    private func blkferry(_ arguments: String...) throws -> ProgramResult {
        try RunningProgram(
            [program] + arguments, environment: ["STATE_DIRECTORY": state.file("state")]
        ).wait()
    }

    @Test(arguments: [512, 4096]) func `a block device gets its old bytes back`(sector: Int) throws
    {
        let scratch = try ScratchDirectory()
        let journal = scratch.file("undo")
        let source = try LoopDevice(size: size, sectorSize: sector)
        let target = try LoopDevice(size: size, sectorSize: sector)
        try fill(source.path, seed: 1, size: size)
        try fill(target.path, seed: 2, size: size / 2)
        let copy = scratch.file("copy")
        try must("dd", "status=none", "bs=1M", "if=\(target.path)", "of=\(copy)")
        let run = try blkferry("--overwrite", "--undo", journal, source.path, target.path)
        #expect(run.status == 0, "\(run)")
        #expect(try areEqual(source.path, target.path))
        let back = try blkferry("rollback", journal)
        #expect(back.status == 0, "\(back)")
        #expect(try areEqual(copy, target.path))
    }

    @Test func `a mounted target is not rolled back`() throws {
        let scratch = try ScratchDirectory()
        let journal = scratch.file("undo")
        let source = try LoopDevice(size: size)
        let target = try LoopDevice(size: size)
        try must("mkfs.ext4", "-q", source.path)
        let run = try blkferry("--overwrite", "--undo", journal, source.path, target.path)
        #expect(run.status == 0, "\(run)")
        let point = scratch.file("mnt")
        try must("mkdir", point)
        try must("mount", target.path, point)
        let mounted = try blkferry("rollback", journal)
        try must("umount", point)
        #expect(mounted.status == 2 && mounted.errors.contains("mounted"), "\(mounted)")
        // Mounting has written to it.
        let changed = try blkferry("rollback", journal)
        #expect(changed.status == 2 && changed.errors.contains("another program"), "\(changed)")
        #expect(try blkferry("rollback", "--overwrite", journal).status == 0)
        #expect(try must("wipefs", target.path) == "")
    }

    @Test func `a journal on its target's own file system is refused`() throws {
        let scratch = try ScratchDirectory()
        let source = try LoopDevice(size: size)
        let target = try LoopDevice(size: size)
        try must("mkfs.ext4", "-q", target.path)
        let point = scratch.file("mnt")
        try must("mkdir", point)
        try must("mount", target.path, point)
        defer { _ = try? must("umount", point) }
        let run = try blkferry(
            "--overwrite", "--undo", point + "/undo", source.path, target.path)
        #expect(run.status == 2 && run.errors.contains("it would be on the target"), "\(run)")
    }
}
