// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// `diff` and `apply` between images.
@Suite(.blocking, .timeLimit(.minutes(60))) struct DeltaTests {
    private let scratch: ScratchDirectory
    private let memory: ScratchDirectory
    private let base: String
    private let result: String
    private let target: String
    private let delta: String
    private let size = 6 << 20

    init() throws {
        scratch = try ScratchDirectory()
        memory = try ScratchDirectory(in: "/dev/shm")
        base = try scratch.filledFile("base", size: size, seed: 1)
        target = scratch.file("target")
        result = scratch.file("result")
        delta = memory.file("delta")
        try must("cp", base, result)
        try fill(result, seed: 2, size: 300_000, offset: 1 << 20)
        try overwrite(result, [UInt8](repeating: 0, count: 1 << 20), at: 3 << 20)
        try overwrite(result, [5, 5], at: size - 2)
        try must("cp", base, target)
    }

    private func makeDelta() throws {
        let made = try blkferry("diff", "-o", delta, result, base)
        #expect(made.status == 0, "\(made)")
    }

    @Test func `a delta makes the result of a replica of the base`() throws {
        let (made, json) = try blkferryJSON("diff", "-o", delta, result, base)
        #expect(made.status == 0 && made.errors == "", "\(made)")
        let sums = try run("sha256sum", result, base).output
        #expect(sums.contains(try #require(json.string("sourceDigest"))))
        #expect(sums.contains(try #require(json.string("targetDigest"))))
        let bytes = try Data(contentsOf: URL(fileURLWithPath: delta))
        #expect(json.int("bytes") == bytes.count && bytes.count < 400_000)
        #expect(bytes.starts(with: Data("rbd diff v1\ns".utf8)))
        let (applied, report) = try blkferryJSON("apply", "--verify", delta, target)
        #expect(applied.status == 0 && applied.errors == "", "\(applied)")
        #expect(report.string("state") == "applied" && report.bool("verified") == true)
        #expect(report.int("zeroed") == 1 << 20)
        #expect(try areEqual(result, target))
    }

    @Test func `a second apply writes nothing`() throws {
        try makeDelta()
        #expect(try blkferry("apply", delta, target).status == 0)
        let before = try FileManager.default.attributesOfItem(atPath: target)[.modificationDate]
        let (again, report) = try blkferryJSON("apply", delta, target)
        #expect(again.status == 0 && report.string("state") == "unchanged", "\(again)")
        #expect(report.int("written") == 0)
        let after = try FileManager.default.attributesOfItem(atPath: target)[.modificationDate]
        #expect(before as? Date == after as? Date)
        #expect(try areEqual(result, target))
    }

    @Test func `an rbd diff without a size is refused, also for an image`() throws {
        try Data("rbd diff v1\ne".utf8).write(to: URL(fileURLWithPath: delta))
        let result = try blkferry("apply", "--overwrite", delta, target)
        #expect(result.status == 2 && result.errors.contains("how large"), "\(result)")
    }

    @Test(arguments: [0, (1 << 20) + 1000, 4 << 20]) func `another base is refused`(place: Int)
        throws
    {
        try makeDelta()
        try overwrite(target, [1, 2, 3], at: place)
        let copy = scratch.file("copy")
        try must("cp", target, copy)
        let refused = try blkferry("apply", delta, target)
        #expect(refused.status == 2, "\(refused)")
        #expect(try areEqual(copy, target))
        let insisting = try blkferry("apply", "--overwrite", delta, target)
        // Inside of a record the result does not depend on what is lost.
        if (1 << 20..<(1 << 20) + 300_000).contains(place) {
            #expect(insisting.status == 0 && insisting.errors.contains("neither"), "\(insisting)")
            #expect(try areEqual(result, target))
        } else {
            #expect(insisting.status == 2 && insisting.errors.contains("not the base"))
            #expect(try areEqual(copy, target))
        }
    }

    @Test func `a truncated or altered delta is refused before the first write`() throws {
        try makeDelta()
        let bytes = try Data(contentsOf: URL(fileURLWithPath: delta))
        let copy = scratch.file("copy")
        try must("cp", target, copy)
        let end = try #require(bytes.range(of: Data("BLKFDLTA".utf8))?.lowerBound)
        for length in [0, 5, 12, 13, 30, 1000, end - 1, end, end + 1, bytes.count - 1] {
            try bytes.prefix(length).write(to: URL(fileURLWithPath: delta))
            let refused = try blkferry("apply", delta, target)
            #expect(refused.status == 2, "\(length): \(refused)")
        }
        for place in [3, 14, 100, 5000, end, end + 30, bytes.count - 40, bytes.count - 1] {
            var changed = bytes
            changed[place] ^= 1
            try changed.write(to: URL(fileURLWithPath: delta))
            let refused = try blkferry("apply", delta, target)
            #expect(refused.status == 2, "\(place): \(refused)")
        }
        #expect(try areEqual(copy, target))
    }

    @Test(arguments: [1, 2]) func `a killed apply is completed by another one`(call: Int) throws {
        // Records that are not written at once.
        for index in 0..<600 { try overwrite(result, [9], at: index * 8192) }
        try makeDelta()
        let killed = try RunningProgram([
            "strace", "-f", "-o", "/dev/null", "-e", "trace=pwrite64,io_uring_enter,fallocate",
            "-e",
            "inject=io_uring_enter,pwrite64,fallocate:signal=SIGKILL:when=\(call)", program,
            "apply", delta, target,
        ]).wait()
        #expect(killed.status != 0)
        let (completed, report) = try blkferryJSON("apply", delta, target)
        #expect(completed.status == 0, "\(completed)")
        #expect(["applied", "completed"].contains(report.string("state")))
        #expect(try areEqual(result, target))
    }

    @Test func `a signal ends an apply in order, and another one finishes the job`() throws {
        for index in 0..<600 { try overwrite(result, [9], at: index * 8192) }
        try makeDelta()
        let apply = try RunningProgram(slowReads(by: 4) + [program, "apply", delta, target])
        while try apply.isRunning && areEqual(base, target) { usleep(2_000) }
        apply.signal(SIGINT)
        let interrupted = try apply.wait()
        #expect(interrupted.status == 130, "\(interrupted)")
        #expect(interrupted.output.contains("incomplete"))
        #expect(try !areEqual(base, target) && !areEqual(result, target))
        let (second, report) = try blkferryJSON("apply", "--verify", delta, target)
        #expect(second.status == 0 && report.string("state") == "completed", "\(second)")
        #expect(try areEqual(result, target))
    }

    @Test func `a signal ends a diff without a delta`() throws {
        // Their zeros take a while.
        let (one, other) = (
            try scratch.sparseFile("one", size: 64 << 30),
            try scratch.sparseFile("other", size: 64 << 30)
        )
        let diff = try RunningProgram([program, "diff", "-o", delta, one, other])
        try #require(
            becomesTrue {
                try !FileManager.default.contentsOfDirectory(atPath: memory.path).isEmpty
            })
        diff.signal(SIGINT)
        let interrupted = try diff.wait()
        #expect(interrupted.status == 130, "\(interrupted)")
        #expect(try FileManager.default.contentsOfDirectory(atPath: memory.path).isEmpty)
    }

    @Test(.enabled(if: MemoryGroup.isAvailable, "needs root and the kernel's memory controller"))
    func `48 MiB of memory are enough, whatever differs`() throws {
        let large = 256 << 20
        let (one, other) = (
            try scratch.sparseFile("one", size: large), try scratch.sparseFile("other", size: large)
        )
        try fill(one, seed: 5, size: 128 << 20, offset: 1 << 20)
        try fill(other, seed: 6, size: 128 << 20, offset: 64 << 20)
        let group = try MemoryGroup(limit: 48 << 20)
        try withExtendedLifetime(group) {
            for arguments in [
                ["diff", "-o", scratch.file("delta"), one, other],
                ["apply", scratch.file("delta"), other],
            ] {
                let result = try RunningProgram(group.prefix + [program] + arguments).wait()
                #expect(result.status == 0, "\(result)")
            }
        }
        #expect(try areEqual(one, other))
    }

    @Test(arguments: [0, 1000]) func `a digest file is enough of a base`(more: Int) throws {
        // A last block that is no whole one.
        for image in [base, result, target] {
            try must("truncate", "-s", "\(size + more)", image)
        }
        try overwrite(result, [7], at: size + more - 1)
        let tree = memory.file("tree")
        #expect(try blkferry("digest", base, "-o", tree).status == 0)
        let (made, json) = try blkferryJSON("diff", "--digest", tree, "-o", delta, result)
        #expect(made.status == 0, "\(made)")
        #expect(json.string("targetDigest")?.contains(":") == (more > 0))
        let (applied, report) = try blkferryJSON("apply", "--verify", delta, target)
        #expect(applied.status == 0 && report.string("state") == "applied", "\(applied)")
        #expect(try areEqual(result, target))
        #expect(try blkferry("apply", delta, target).output.contains("nothing was written"))
        for place in [5, (1 << 20) + 5000] {
            try must("cp", base, target)
            try overwrite(target, [1, 2, 3], at: place)
            #expect(try blkferry("apply", delta, target).status == 2)
        }
        // Half of it is written.
        try must("cp", base, target)
        try must(
            "dd", "if=\(result)", "of=\(target)", "bs=4096", "count=290", "conv=notrunc",
            "status=none")
        #expect(try blkferryJSON("apply", delta, target).json.string("state") == "completed")
        #expect(try areEqual(result, target))
        try overwrite(tree, [1], at: 5000)
        let damaged = try blkferry("diff", "--digest", tree, "-o", memory.file("x"), result)
        #expect(damaged.status == 2 && damaged.errors.contains("damaged"), "\(damaged)")
        let size = try blkferry("diff", "--digest", tree, "-o", memory.file("x"), tree)
        #expect(size.status == 2, "\(size)")
    }

    @Test func `a delta goes through a pipe`() throws {
        let piped = try run(
            "sh", "-c", "\"$0\" diff -q -o - \"$1\" \"$2\" | \"$0\" apply -q - \"$3\"", program,
            result,
            base, target)
        #expect(piped.status == 0 && piped.output == "" && piped.errors == "", "\(piped)")
        #expect(try areEqual(result, target))
        // The stream is the file.
        try makeDelta()
        let other = try run(
            "sh", "-c", "\"$0\" diff -o - \"$1\" \"$2\" >\"$3\"", program, result, base,
            memory.file("other"))
        #expect(other.errors.contains("delta written"))
        let sizes = try [delta, memory.file("other")].map {
            try Data(contentsOf: URL(fileURLWithPath: $0)).count
        }
        #expect(sizes[0] == sizes[1])
    }

    @Test func `a pipe with another base, or that ends early, writes nothing`() throws {
        try makeDelta()
        try overwrite(target, [1, 2, 3], at: 100)
        let copy = scratch.file("copy")
        try must("cp", target, copy)
        let wrong = try run(
            "sh", "-c", "\"$0\" apply - \"$2\" <\"$1\"", program, delta, target)
        #expect(wrong.status == 2, "\(wrong)")
        try must("cp", base, target)
        let cut = try run(
            "sh", "-c", "head -c 100000 \"$1\" | \"$0\" apply --spool \"$3\" - \"$2\"", program,
            delta, target, memory.path)
        #expect(cut.status == 2 && cut.errors.contains("standard input"), "\(cut)")
        #expect(try areEqual(base, target))
        #expect(try FileManager.default.contentsOfDirectory(atPath: memory.path) == ["delta"])
    }

    @Test(arguments: ["2M", "5000001", "9M"]) func `the size changes, too`(size: String) throws {
        try must("truncate", "-s", size, result)
        try makeDelta()
        let applied = try blkferry("apply", "--verify", delta, target)
        #expect(applied.status == 0, "\(applied)")
        #expect(try areEqual(result, target))
        #expect(try blkferry("apply", delta, target).output.contains("nothing was written"))
    }

    @Test func `an apply with --undo is rolled back`() throws {
        try must("truncate", "-s", "5M", result)
        try makeDelta()
        let journal = memory.file("undo")
        let (applied, report) = try blkferryJSON("apply", "--undo", journal, delta, target)
        #expect(applied.status == 0 && report.record("undo")?.bool("usable") == true, "\(applied)")
        #expect(try areEqual(result, target))
        let back = try blkferry("rollback", journal)
        #expect(back.status == 0, "\(back)")
        #expect(try areEqual(base, target))
    }

    @Test func `an rbd diff of another program takes --overwrite`() throws {
        try makeDelta()
        let bytes = try Data(contentsOf: URL(fileURLWithPath: delta))
        let end = try #require(bytes.range(of: Data("BLKFDLTA".utf8))?.lowerBound)
        try bytes.prefix(end).write(to: URL(fileURLWithPath: delta))
        let refused = try blkferry("apply", delta, target)
        #expect(refused.status == 2 && refused.errors.contains("no trailer"), "\(refused)")
        #expect(try areEqual(base, target))
        let (applied, report) = try blkferryJSON("apply", "--overwrite", delta, target)
        #expect(applied.status == 0 && report.string("state") == "overwritten", "\(applied)")
        #expect(applied.errors.contains("its base is unknown"))
        #expect(try areEqual(result, target))
    }

    @Test func `equal devices make a delta without records`() throws {
        let (made, json) = try blkferryJSON("diff", "-o", delta, base, target)
        #expect(made.status == 0 && json.int("records") == 0, "\(made)")
        #expect(try blkferry("apply", delta, target).output.contains("nothing was written"))
    }

    @Test func `an existing file, a missing target, and wrong usage`() throws {
        try must("touch", delta)
        let exists = try blkferry("diff", "-o", delta, result, base)
        #expect(exists.status == 2 && exists.errors.contains("it exists"), "\(exists)")
        try must("rm", delta)
        try makeDelta()
        let missing = try blkferry("apply", delta, scratch.file("none"))
        #expect(missing.status == 3, "\(missing)")
        #expect(!FileManager.default.fileExists(atPath: scratch.file("none")))
        #expect(try blkferry("apply", scratch.file("none"), target).status == 3)
        #expect(try blkferry("apply", base, target).status == 2)
        for arguments in [
            [result, base], ["-o", "-", "--json", result, base], ["-o", delta, result],
            ["-o", delta, "--since", "x", result, base], ["-o", delta, "http://h/x", base],
            ["-o", delta, "-b", "1000", result, base], ["-o", "", result, base],
            ["-o", delta, "--digest", "x", result, base], ["-o", delta, "--digest", "", result],
            ["-o", delta, "--digest", "x", "-b", "4K", result],
            ["-o", delta, "--root-hash", String(repeating: "0", count: 64), result, base],
        ] {
            let usage = try RunningProgram([program, "diff"] + arguments).wait()
            #expect(usage.status == 64, "\(arguments): \(usage)")
        }
        #expect(try blkferry("apply", delta).status == 64)
        #expect(try blkferry("apply", "--spool", "/tmp", delta, target).status == 64)
        #expect(try blkferry("apply", delta, "ssh://host/dev/x").status == 64)
        let terminal = try run(
            "script", "-qec", "\(program) diff -o - \(result) \(base)", "/dev/null")
        #expect(terminal.status == 64, "\(terminal)")
    }

    @Test(.enabled(if: isRoot, "needs root")) func `a full disk leaves no delta`() throws {
        let small = scratch.file("small")
        try must("mkdir", small)
        try must("mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", small)
        defer { _ = try? must("umount", small) }
        let full = try blkferry("diff", "-o", small + "/delta", result, base)
        #expect(full.status == 3 && full.errors.contains("No space left"), "\(full)")
        #expect(try FileManager.default.contentsOfDirectory(atPath: small).isEmpty)
        try makeDelta()
        let kept = try run(
            "sh", "-c", "\"$0\" apply --spool \"$3\" - \"$2\" <\"$1\"", program, delta, target,
            small)
        #expect(kept.status == 3 && kept.errors.contains("--spool"), "\(kept)")
        #expect(try areEqual(base, target))
    }
}

/// The same on block devices.
