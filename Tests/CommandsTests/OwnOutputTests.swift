// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// Messages that would be written into a device or an image.
@Suite(
    .blocking, .timeLimit(.minutes(60)),
    .enabled(if: isRoot, "loop devices need root"))
struct OwnOutputTests {
    private let scratch: ScratchDirectory
    private let source: LoopDevice
    private let target: LoopDevice
    private let size = 1 << 20

    /// `source` and `target` are the backing files of $S and $T, `plain` is an image without one.
    init() throws {
        scratch = try ScratchDirectory()
        for (seed, name) in ["source", "target", "plain"].enumerated() {
            try fill(
                try scratch.sparseFile(name, size: size), seed: UInt64(seed) + 1, size: size)
        }
        source = try LoopDevice(backingFile: scratch.file("source"))
        target = try LoopDevice(backingFile: scratch.file("target"))
    }

    private func shell(_ script: String) throws -> ProgramResult {
        try run(
            "sh", "-c", "cd \(scratch.path); \(script)",
            environment: ["B": program, "S": source.path, "T": target.path])
    }

    /// What is in the files, and on the loop devices, whose page cache may be newer.
    private func contents() throws -> [[UInt8]] {
        try ["source", "target", "plain"].map { try [UInt8](contentsOf: scratch.file($0)) }
            + [source.path, target.path].map { try [UInt8](contentsOf: $0) }
    }

    private func text(_ name: String) throws -> String {
        try String(contentsOfFile: scratch.file(name), encoding: .utf8)
    }

    @Test(arguments: [
        "$B $S $T 2<> source", "$B -q $S $T 2<> target", "$B --json $S $T 2>> source",
        "$B $S $T 2>> target", "$B $S $T >> target", "$B verify $S $T 2<> source",
        "$B verify $S $T 2>> target", "$B verify $S $T 1<> source", "$B $S $T 2<> $T",
        "$B $S $T 1<> $S", "$B $S /dev/stdout 1<> $T", "$B $S /dev/stderr 2>> target",
        "$B verify /dev/stdout $T 1<> $S", "$B plain $T >> plain 2>&1", "$B $S plain 2<> plain",
    ])
    func `a refusal is not written into its own target`(script: String) throws {
        let before = try contents()
        let result = try shell(script)
        #expect(result.status == 2, "\(result)")
        #expect(try contents() == before)
    }

    @Test func `a refusal is printed to the other stream`() throws {
        for script in ["$B $S $T 1<> target", "$B $S $T >> source", "$B $S /dev/stdout 1<> $T"] {
            let result = try shell(script)
            #expect(result.status == 2)
            #expect(result.errors.contains("it is where standard output goes"), "\(result)")
        }
    }

    @Test(arguments: [
        "$B -b 3 source $T 2<> $T", "$B -b 3 plain $T 2>> plain", "$B --nope plain t 2<> plain",
        "$B --nope plain t 2>> plain", "$B $S $T more 2<> $S", "$B $S $T more 2>> source",
        "$B --max-change 200 $S $T 2<> target", "$B verify --max-change 200 plain t 2>> plain",
        "$B -disk plain 2>> plain", "$B 2<> plain", "$B 2>> target", "$B list x 2<> $T",
    ])
    func `a usage error is not written into a disk`(script: String) throws {
        let before = try contents()
        let result = try shell(script)
        #expect(result.status == 64, "\(result)")
        #expect(try contents() == before)
    }

    @Test func `a log and a result are written wherever their streams go`() throws {
        let line = String(repeating: "x", count: 600) + "\n"
        try Data(line.utf8).write(to: URL(fileURLWithPath: scratch.file("log")))
        #expect(try shell("$B --nope $S 2>> log").status == 64)
        #expect(try shell("$B verify $S $T 2>> log >> log").status == 1)
        let log = try text("log")
        #expect(log.hasPrefix(line) && log.contains("usage: "), "\(log)")
        #expect(log.contains("differ"), "\(log)")
        // A temporary file is often open to read and write. Names of commands are no operands.
        for script in ["$B --nope $S 2<> new", "$B verify --nope 2> verify"] {
            #expect(try shell(script).status == 64)
        }
        #expect(try text("new").contains("usage: "))
        #expect(try text("verify").contains("usage: "))
        #expect(try shell("$B verify --json plain $T > verify").status == 1)
        #expect(try text("verify").hasPrefix("{"))
    }
}
