// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// Journals that must not be used, because the result would be wrong.
@Suite(.blocking, .timeLimit(.minutes(60))) struct UndoDamageTests {
    private let rig: UndoRig

    init() throws { rig = try UndoRig() }

    /// A run that was killed before its fourth record, whose third was followed by its write.
    ///
    /// The second record is of the hole, and has no payload; strace counts the calls of each thread.
    private func killedRun() throws {
        let killed = try rig.disturbed(
            "pwrite64", "signal=SIGKILL:when=9", of: rig.journal, "-c", "1", "--overwrite",
            "--undo", rig.journal, rig.source, rig.target)
        #expect(killed.status != 0)
    }

    private func flip(_ place: Int) throws {
        let bytes = try [UInt8](Data(contentsOf: URL(fileURLWithPath: rig.journal)))
        try overwrite(rig.journal, [bytes[place] ^ 1], at: place)
    }

    /// Where the records of a journal begin; each begins with the magic and a number.
    private func records() throws -> [Int] {
        let bytes = try [UInt8](Data(contentsOf: URL(fileURLWithPath: rig.journal)))
        var places: [Int] = []
        for place in 12288..<max(12288, bytes.count - 119)
        where bytes[place..<place + 4].elementsEqual("BFUR".utf8) {
            places.append(place)
        }
        return places
    }

    @Test(arguments: [60, 300, -300]) func `a damaged last record is no torn tail`(place: Int)
        throws
    {
        let copy = try rig.copy(of: rig.target)
        try killedRun()
        // Each record has two heads.
        let last = try #require(records().dropLast().last)
        let size = try FileManager.default.attributesOfItem(atPath: rig.journal)[.size] as? Int
        try flip(place > 0 ? last + place : #require(size) + place)
        let before = try rig.copy(of: rig.target, as: "before")
        let refused = try rig.blkferry("rollback", rig.journal)
        if refused.status == 0 {
            #expect(try areEqual(copy, rig.target))
        } else {
            #expect(refused.status == 2 && refused.errors.contains("damaged"), "\(refused)")
            #expect(try areEqual(before, rig.target))
        }
        if place == 300 { #expect(refused.status == 2) }
    }

    @Test func `a record whose write did not follow may be torn`() throws {
        let copy = try rig.copy(of: rig.target)
        // The record is complete and flushed, and the write does not happen.
        let killed = try rig.disturbed(
            "pwrite64", "signal=SIGKILL:when=3", of: rig.target, "-c", "1", "--overwrite", "--undo",
            rig.journal, rig.source, rig.target)
        #expect(killed.status != 0)
        try flip(#require(records().dropLast().last) + 300)
        let back = try rig.blkferry("rollback", rig.journal)
        #expect(back.status == 0, "\(back)")
        #expect(try areEqual(copy, rig.target))
    }

    @Test func `a journal that is cut off is refused after the end of its run`() throws {
        #expect(
            try rig.blkferry("--overwrite", "--undo", rig.journal, rig.source, rig.target).status
                == 0)
        let places = try records()
        for size in [places[2], places[1], 12288, 5000, 0] {
            try must("truncate", "-s", "\(size)", rig.journal)
            let refused = try rig.blkferry("rollback", rig.journal)
            #expect(refused.status == 2, "\(size): \(refused)")
            #expect(try areEqual(rig.source, rig.target))
        }
    }

    @Test func `a killed run's journal without any record is refused`() throws {
        try killedRun()
        try must("truncate", "-s", "12288", rig.journal)
        let before = try rig.copy(of: rig.target)
        let refused = try rig.blkferry("rollback", rig.journal)
        #expect(refused.status == 2 && refused.errors.contains("damaged"), "\(refused)")
        #expect(try areEqual(before, rig.target))
    }

    /// Flushes of the journal fail, from the one that says that the journal is given up.
    @Test(arguments: [1, 2, 3, 4, 5, 6])
    func `a run that cannot say that its journal is given up stops`(flush: Int) throws {
        let copy = try rig.copy(of: rig.target)
        let run = try rig.disturbed(
            "fdatasync", "error=EIO:when=\(flush)+", of: rig.journal, "-c", "1", "--overwrite",
            "--undo", rig.journal, "--undo-limit", "2500K", "--undo-full", "continue", rig.source,
            rig.target)
        let back = try rig.blkferry("rollback", rig.journal)
        if run.status == 0 {
            #expect(back.status == 2, "\(back)")
            #expect(try areEqual(rig.source, rig.target))
        } else {
            #expect(run.status == 3, "\(run)")
            #expect(back.status == 2 || back.status == 0, "\(back)")
            if back.status == 0 { #expect(try areEqual(copy, rig.target)) }
        }
    }

    @Test func `a run that was killed after it gave its journal up is not rolled back`() throws {
        let killed = try rig.disturbed(
            "pwrite64", "signal=SIGKILL:when=5", of: rig.target, "-c", "1", "--overwrite", "--undo",
            rig.journal, "--undo-limit", "1500K", "--undo-full", "continue", rig.source, rig.target)
        #expect(killed.status != 0)
        // What was not flushed after a power cut.
        let records = try records()
        if let last = records.last { try must("truncate", "-s", "\(last)", rig.journal) }
        let refused = try rig.blkferry("rollback", rig.journal)
        #expect(refused.status == 2 && refused.errors.contains("incomplete"), "\(refused)")
    }

    @Test func `a run that only creates an image is rolled back after a kill`() throws {
        let new = rig.scratch.file("new")
        let zeros = try rig.scratch.sparseFile("zeros", size: 3 << 20)
        let killed = try rig.disturbed(
            "ftruncate", "signal=SIGKILL:when=1", of: new, "--undo", rig.journal, zeros, new)
        #expect(killed.status != 0)
        let back = try rig.blkferry("rollback", rig.journal)
        #expect(back.status == 0 && back.output.contains("removed"), "\(back)")
        #expect(!FileManager.default.fileExists(atPath: new))
    }

    @Test(arguments: [false, true]) func `a run that only extends an image is rolled back`(
        isKilled: Bool
    ) throws {
        try must("truncate", "-s", "9M", rig.source)
        try must(
            "dd", "status=none", "conv=notrunc", "if=\(rig.source)", "of=\(rig.target)",
            "count=10240")
        let copy = try rig.copy(of: rig.target)
        if isKilled {
            _ = try rig.disturbed(
                "fdatasync", "signal=SIGKILL:when=1", of: rig.target, "--undo", rig.journal,
                "--overwrite", rig.source, rig.target)
        } else {
            let run = try rig.blkferry(
                "--undo", rig.journal, "--overwrite", rig.source, rig.target)
            #expect(run.status == 0, "\(run)")
            #expect(try areEqual(rig.source, rig.target))
        }
        let back = try rig.blkferry("rollback", rig.journal)
        #expect(back.status == 0, "\(back)")
        #expect(try areEqual(copy, rig.target))
    }

    /// As many as fit into a test; a run and its rollback are killed again and again.
    @Test(arguments: 1...3) func `a run and a rollback that are killed at any time lose nothing`(
        seed: UInt64
    ) throws {
        var random = SeededGenerator(seed: seed)
        for _ in 0..<4 {
            let journal = rig.memory.file("kill.\(Int.random(in: 0..<1_000_000, using: &random))")
            let copy = try rig.copy(of: rig.target)
            func kill(_ arguments: String...) throws {
                let victim = try RunningProgram(
                    [program] + arguments, environment: rig.environment)
                usleep(UInt32.random(in: 0...60_000, using: &random))
                victim.signal(SIGKILL)
                _ = try victim.wait()
            }
            try kill("--overwrite", "--undo", journal, "--bwlimit", "1G", rig.source, rig.target)
            guard FileManager.default.fileExists(atPath: journal) else { continue }
            for _ in 0..<3 { try kill("rollback", journal) }
            let back = try rig.blkferry("rollback", journal)
            // A journal that was killed before its first record covers an untouched target.
            #expect(back.status == 0 || back.status == 2, "\(back)")
            #expect(try areEqual(copy, rig.target))
            try must("rm", "-f", journal)
        }
    }
}
