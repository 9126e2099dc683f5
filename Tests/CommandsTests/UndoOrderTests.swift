// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// Several runs to one target, and other targets under its name.
@Suite(.blocking, .timeLimit(.minutes(60))) struct UndoOrderTests {
    private let rig: UndoRig
    private let second: String

    init() throws {
        rig = try UndoRig()
        second = try rig.scratch.filledFile("second", size: rig.size, seed: 3)
    }

    private func undo(_ source: String, to journal: String, _ options: String...) throws
        -> ProgramResult
    {
        try RunningProgram(
            [program, "--overwrite", "--undo", journal] + options + [source, rig.target],
            environment: rig.environment
        ).wait()
    }

    @Test func `journals are rolled back newest first`() throws {
        let copy = try rig.copy(of: rig.target)
        let later = rig.memory.file("later")
        #expect(try undo(rig.source, to: rig.journal).status == 0)
        #expect(try undo(second, to: later).status == 0)
        let refused = try rig.blkferry("rollback", rig.journal)
        #expect(refused.status == 2 && refused.errors.contains("a later run"), "\(refused)")
        #expect(refused.errors.contains(later))
        #expect(try areEqual(second, rig.target))
        #expect(try rig.blkferry("rollback", later).status == 0)
        #expect(try areEqual(rig.source, rig.target))
        let back = try rig.blkferry("rollback", rig.journal)
        #expect(back.status == 0, "\(back)")
        #expect(try areEqual(copy, rig.target))
    }

    @Test func `a later run without a journal makes the journal unusable`() throws {
        #expect(try undo(rig.source, to: rig.journal).status == 0)
        #expect(try rig.blkferry("--overwrite", second, rig.target).status == 0)
        let refused = try rig.blkferry("rollback", rig.journal)
        #expect(refused.status == 2 && refused.errors.contains("without an undo journal"))
        #expect(try areEqual(second, rig.target))
    }

    @Test func `a later run that writes nothing does not`() throws {
        let copy = try rig.copy(of: rig.target)
        #expect(try undo(rig.source, to: rig.journal).status == 0)
        #expect(try rig.blkferry(rig.source, rig.target).status == 0)
        let back = try rig.blkferry("rollback", rig.journal)
        #expect(back.status == 0, "\(back)")
        #expect(try areEqual(copy, rig.target))
    }

    @Test func `a later run that was killed is rolled back first`() throws {
        let later = rig.memory.file("later")
        #expect(try undo(rig.source, to: rig.journal).status == 0)
        let killed = try rig.disturbed(
            "pwrite64", "signal=SIGKILL:when=3", of: rig.target, "-c", "1", "--overwrite", "--undo",
            later, second, rig.target)
        #expect(killed.status != 0)
        #expect(try rig.blkferry("rollback", rig.journal).status == 2)
        #expect(try rig.blkferry("rollback", later).status == 0)
        #expect(try areEqual(rig.source, rig.target))
    }

    @Test func `a run that cannot note that it writes does not write`() throws {
        let before = try rig.copy(of: rig.target)
        // Neither in the state directory nor beside the journal.
        let run = try rig.disturbed(
            "/^rename", "error=EIO", "--overwrite", "--undo", rig.journal, rig.source, rig.target)
        #expect(run.status == 3, "\(run)")
        #expect(try areEqual(before, rig.target))
        #expect(!FileManager.default.fileExists(atPath: rig.journal))
    }

    @Test func `without a state directory the note is beside the journal`() throws {
        let before = try rig.copy(of: rig.target)
        try must("touch", rig.scratch.file("state"))
        let later = rig.memory.file("later")
        #expect(try undo(rig.source, to: rig.journal).status == 0)
        #expect(try undo(second, to: later).status == 0)
        #expect(try rig.blkferry("rollback", rig.journal).status == 2)
        #expect(try rig.blkferry("rollback", later).status == 0)
        let back = try rig.blkferry("rollback", rig.journal)
        #expect(back.status == 0, "\(back)")
        #expect(try areEqual(before, rig.target))
        // Nothing can be known of other journals, and nothing can be noted.
        let plain = try rig.blkferry("--overwrite", second, rig.target)
        #expect(plain.status == 0, "\(plain)")
    }

    @Test func `a journal of a run that has succeeded is replaced, and no other`() throws {
        #expect(try undo(rig.source, to: rig.journal).status == 0)
        let replaced = try undo(second, to: rig.journal, "--undo-replace")
        #expect(replaced.status == 0, "\(replaced)")
        #expect(try areEqual(second, rig.target))
        #expect(try rig.blkferry("rollback", rig.journal).status == 0)
        #expect(try areEqual(rig.source, rig.target))
        // A run that failed is no reason to lose the way back.
        let failed = rig.memory.file("failed")
        #expect(try undo(second, to: failed, "--undo-limit", "2M").status == 3)
        let refused = try undo(second, to: failed, "--undo-replace")
        #expect(refused.status == 2 && refused.errors.contains("did not succeed"), "\(refused)")
        let other = try rig.scratch.filledFile("other", size: rig.size, seed: 9)
        let foreign = try rig.blkferry(
            "--overwrite", "--undo", rig.journal, "--undo-replace", rig.source, other)
        #expect(foreign.status == 2 && foreign.errors.contains("another target"), "\(foreign)")
    }

    @Test func `a run that ends before its first write keeps the journal that it would replace`()
        throws
    {
        let copy = try rig.copy(of: rig.target)
        #expect(try undo(rig.source, to: rig.journal).status == 0)
        let run = try rig.disturbed(
            "fdatasync", "error=EIO:when=1", "--overwrite", "--undo", rig.journal,
            "--undo-replace", second, rig.target)
        #expect(run.status == 3, "\(run)")
        #expect(try areEqual(rig.source, rig.target))
        let back = try rig.blkferry("rollback", "--overwrite", rig.journal)
        #expect(back.status == 0, "\(back)")
        #expect(try areEqual(copy, rig.target))
    }

    @Test func `an image that was copied or moved is not the journal's, or is still`() throws {
        let before = try rig.copy(of: rig.target)
        #expect(try undo(rig.source, to: rig.journal).status == 0)
        let other = rig.scratch.file("other")
        try must("mv", rig.target, other)
        try must("cp", other, rig.target)
        let refused = try rig.blkferry("rollback", rig.journal)
        #expect(refused.status == 2 && refused.errors.contains("not the device"), "\(refused)")
        #expect(try rig.blkferry("rollback", "--overwrite", rig.journal).status == 2)
        #expect(try areEqual(rig.source, rig.target))
        // The image itself, under another name; moving it changes its time of change.
        let back = try rig.blkferry("rollback", "--overwrite", rig.journal, other)
        #expect(back.status == 0, "\(back)")
        #expect(try areEqual(before, other))
    }

    @Test func `options of a run go with a journal`() throws {
        for options in [["--whole-file"], ["--size-policy", "resize"], ["--verify"]] {
            let copy = try rig.copy(of: rig.target)
            let journal = rig.memory.file("options")
            let run = try RunningProgram(
                [program, "--overwrite", "--undo", journal] + options + [rig.source, rig.target],
                environment: rig.environment
            ).wait()
            #expect(run.status == 0, "\(options): \(run)")
            #expect(try areEqual(rig.source, rig.target))
            #expect(try rig.blkferry("rollback", journal).status == 0)
            #expect(try areEqual(copy, rig.target), "\(options)")
            try must("rm", journal)
        }
    }

    @Test func `a pull from a server is rolled back`() throws {
        let copy = try rig.copy(of: rig.target)
        let server = try ServeProcess("\(rig.source):ro")
        let run = try rig.blkferry(
            "--overwrite", "--undo", rig.journal, server.url(rig.source), rig.target)
        #expect(run.status == 0, "\(run)")
        #expect(try areEqual(rig.source, rig.target))
        #expect(try rig.blkferry("rollback", rig.journal).status == 0)
        #expect(try areEqual(copy, rig.target))
    }

    /// The journal has at most 1.2 times what the target gets, and is only appended to.
    @Test func `the journal costs a second write and little more`() throws {
        // One block of 4 KiB in each 64 KiB differs.
        let (size, block) = (rig.size, 4096)
        try must("cp", rig.source, rig.target)
        for offset in stride(from: 0, to: size, by: 16 * block) {
            try must(
                "dd", "status=none", "conv=notrunc", "if=\(second)", "of=\(rig.target)",
                "bs=\(block)", "count=1", "skip=\(offset / block)", "seek=\(offset / block)")
        }
        let trace = rig.scratch.file("trace")
        let run = try RunningProgram(
            [
                "strace", "-f", "-y", "-o", trace, "-e", "trace=pwrite64,fdatasync", program,
                "--overwrite", "--undo", rig.journal, rig.source, rig.target, "--json",
            ], environment: rig.environment
        ).wait()
        #expect(run.status == 0, "\(run)")
        let written = size / 16
        var journal = 0
        var last = -1
        var flushes = 0
        for call in try systemCalls(inTrace: trace) where call.contains("<\(rig.journal)>") {
            if call.contains("fdatasync(") { flushes += 1 }
            guard call.contains("pwrite64("), let result = call.split(separator: "=").last,
                let count = Int(result.trimmingCharacters(in: .whitespaces)),
                let place = call.split(separator: ", ").last.flatMap({
                    Int($0.prefix { $0.isNumber })
                })
            else { continue }
            journal += count
            // But for the page at the end of the run.
            if place != 8192 { #expect(place > last, "\(call)") }
            last = max(last, place)
        }
        #expect(journal > written)
        #expect(Double(written + journal) <= 2.2 * Double(written), "\(journal) for \(written)")
        #expect(flushes <= size / (1 << 20) + 3, "\(flushes) flushes")
    }
}

/// The same with block devices.
@Suite(.blocking, .enabled(if: isRoot, "loop devices need root"), .timeLimit(.minutes(60)))
struct DeviceUndoOrderTests {
    private let rig: UndoRig
    private let size = 8 << 20

    init() throws { rig = try UndoRig() }

    @Test func `another disk is refused, unless the user names it and accepts that`() throws {
        let source = try LoopDevice(size: size)
        let target = try LoopDevice(size: size)
        let other = try LoopDevice(size: size)
        try fill(source.path, seed: 1, size: size)
        try fill(other.path, seed: 5, size: size)
        #expect(
            try rig.blkferry("--overwrite", "--undo", rig.journal, source.path, target.path).status
                == 0)
        let copy = try rig.copy(of: other.path)
        let refused = try rig.blkferry("rollback", rig.journal, other.path)
        #expect(refused.status == 2 && refused.errors.contains("not the device"), "\(refused)")
        #expect(try areEqual(copy, other.path))
        let forced = try rig.blkferry("rollback", "--overwrite", rig.journal, other.path)
        #expect(forced.status == 0, "\(forced)")
    }

    @Test func `a disk with another file behind it is another one`() throws {
        let source = try LoopDevice(size: size)
        try fill(source.path, seed: 1, size: size)
        let file = try rig.scratch.filledFile("disk", size: size, seed: 2)
        let copy = try rig.copy(of: file)
        var path = ""
        do {
            let target = try LoopDevice(backingFile: file)
            path = target.path
            let run = try rig.blkferry(
                "--overwrite", "--undo", rig.journal, source.path, target.path)
            #expect(run.status == 0, "\(run)")
        }
        // The file of the journal is found again at whatever device it is.
        let again = try LoopDevice(backingFile: file)
        let back = try rig.blkferry("rollback", "--overwrite", rig.journal)
        #expect(back.status == 0, "\(path), \(again.path): \(back)")
        #expect(try areEqual(copy, again.path))
    }

    @Test func `a partition whose disk was copied is ambiguous`() throws {
        let source = try LoopDevice(size: 2 << 20)
        try fill(source.path, seed: 1, size: 2 << 20)
        let file = try rig.scratch.sparseFile("disk", size: size)
        try must("sfdisk", "-q", file, input: "label: gpt\nstart=2048, size=4096\n")
        let target = try LoopDevice(backingFile: file, partitions: true)
        try must("partx", "--update", target.path)
        defer { _ = try? must("partx", "--delete", target.path) }
        let partition = target.path + "p1"
        let run = try rig.blkferry("--overwrite", "--undo", rig.journal, source.path, partition)
        #expect(run.status == 0, "\(run)")
        let copied = rig.scratch.file("copied")
        try must("cp", file, copied)
        let other = try LoopDevice(backingFile: copied, partitions: true)
        try must("partx", "--update", other.path)
        defer { _ = try? must("partx", "--delete", other.path) }
        let refused = try rig.blkferry("rollback", rig.journal)
        #expect(refused.status == 2 && refused.errors.contains("devices have it"), "\(refused)")
        let wrong = try rig.blkferry("rollback", rig.journal, other.path + "p1")
        #expect(wrong.status == 2 && wrong.errors.contains("not the device"), "\(wrong)")
        #expect(try rig.blkferry("rollback", "--overwrite", rig.journal, partition).status == 0)
    }

    @Test func `a run to a partition makes the journal of its disk unusable`() throws {
        let file = try rig.scratch.sparseFile("disk", size: size)
        try must("sfdisk", "-q", file, input: "label: gpt\nstart=2048, size=4096\n")
        let source = try LoopDevice(backingFile: file)
        let target = try LoopDevice(size: size, partitions: true)
        let run = try rig.blkferry("--overwrite", "--undo", rig.journal, source.path, target.path)
        #expect(run.status == 0, "\(run)")
        try must("partx", "--update", target.path)
        defer { _ = try? must("partx", "--delete", target.path) }
        let part = try LoopDevice(size: 2 << 20)
        try fill(part.path, seed: 4, size: 2 << 20)
        let later = try rig.blkferry("--overwrite", part.path, target.path + "p1")
        #expect(later.status == 0, "\(later)")
        let refused = try rig.blkferry("rollback", rig.journal)
        #expect(refused.status == 2 && refused.errors.contains("a later run"), "\(refused)")
    }

    @Test func `a moved backup GPT and a kept tail are rolled back`() throws {
        let file = try rig.scratch.filledFile("disk", size: size, seed: 3)
        try must("sfdisk", "-q", file, input: "label: gpt\nstart=2048, size=4096\n")
        let source = try LoopDevice(backingFile: file)
        let target = try LoopDevice(size: 2 * size)
        try fill(target.path, seed: 2, size: 2 * size)
        let copy = try rig.copy(of: target.path)
        let run = try rig.blkferry(
            "--overwrite", "--undo", rig.journal, "--size-policy", "prefix", "--move-backup-gpt",
            source.path, target.path)
        #expect(run.status == 0, "\(run)")
        #expect(try !areEqual(copy, target.path))
        let back = try rig.blkferry("rollback", rig.journal)
        #expect(back.status == 0, "\(back)")
        #expect(try areEqual(copy, target.path))
    }
}
