// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// What the tests of `blkferry benchmark` have in common: two images and, maybe, an rsync of theirs.
struct BenchmarkRig {
    let scratch: ScratchDirectory
    let source: String
    let target: String
    let size: Int
    /// A directory with programs that come before, or instead of, all others.
    let programs: String

    init(size: Int = (2 << 20) + 1) throws {
        self.size = size
        scratch = try ScratchDirectory()
        source = try scratch.filledFile("source", size: size, seed: 1)
        target = scratch.file("target")
        programs = scratch.file("programs")
        try FileManager.default.createDirectory(
            atPath: programs, withIntermediateDirectories: false)
    }

    /// Puts a script in the place of rsync; it answers the first questions to rsync.
    func fakeRsync(_ body: String) throws {
        let script = """
            #!/bin/sh
            PATH=/usr/bin:/bin
            case $1 in
            --version) echo 'rsync  version 9.9.9  protocol version 99'; exit ;;
            --help) echo '--fsync'; exit ;;
            esac
            \(body)
            """
        let path = "\(programs)/rsync"
        try Data(script.utf8).write(to: URL(fileURLWithPath: path))
        try must("chmod", "755", path)
    }

    /// The variables of a permitted run, which with `onlyOurs` finds only the test's programs.
    func environment(onlyOurs: Bool = false) -> [String: String] {
        ["BLKFERRY_BENCHMARK": "allowed"].merging(onlyOurs ? ["PATH": programs] : [:]) { $1 }
    }

    func run(_ arguments: String..., onlyOurs: Bool = false) throws -> ProgramResult {
        try RunningProgram(
            [program] + arguments, environment: environment(onlyOurs: onlyOurs)
        ).wait()
    }

    func json(
        _ arguments: String..., onlyOurs: Bool = false
    ) throws -> (result: ProgramResult, json: Record) {
        let result = try RunningProgram(
            [program] + arguments + ["--json"], environment: environment(onlyOurs: onlyOurs)
        ).wait()
        let object = try JSONSerialization.jsonObject(with: Data(result.output.utf8))
        return (result, Record(try #require(object as? [String: Any], "\(result)")))
    }
}

/// `blkferry benchmark` between images: what needs no root.
@Suite(.blocking, .timeLimit(.minutes(60))) struct BenchmarkTests {
    private let rig = Result { try BenchmarkRig() }

    @Test func `a benchmark has the same rows in text and JSON, and the target equals the source`()
        throws
    {
        let rig = try rig.get()
        let text = try rig.run("benchmark", "-B", "3", rig.source, rig.target, onlyOurs: true)
        #expect(text.status == 0, "\(text)")
        let lines = text.output.split(separator: "\n")
        #expect(lines.count == 5, "\(lines)")
        #expect(lines[0].hasPrefix("\(rig.source) -> \(rig.target): 2.00 MiB"))
        #expect(lines[2].hasPrefix("33.3 %") && lines[4].hasPrefix(" 100 %"))
        #expect(lines.dropFirst(2).allSatisfy { $0.hasSuffix("-  " + dashed) }, "\(lines)")
        #expect(text.errors.contains("step 3 of 3"))
        #expect(try areEqual(rig.source, rig.target))

        let (result, json) = try rig.json("-B", "3", rig.source, rig.target, onlyOurs: true)
        #expect(result.status == 0)
        let rows = try #require(json.records("rows"))
        #expect(json.string("command") == "benchmark" && json.int("exitStatus") == 0)
        #expect(json.bool("equal") == true && json.bool("interrupted") == false)
        #expect(json.int("steps") == 3 && json.int("size") == rig.size && rows.count == 3)
        #expect(rows.allSatisfy { $0.double("seconds") != nil && $0.double("ratio") == nil })
        #expect(json.string("rsync") == nil)
        #expect(result.errors.contains("rsync is left out: it is not found"))
        #expect(try areEqual(rig.source, rig.target))
    }

    /// A cell without a figure in the last column.
    private let dashed = String(repeating: " ", count: "rsync/blkferry".count - 1) + "-"

    @Test(arguments: ["sequential", "random"], ["512", "4K", "66048"])
    func `each step changes, finds and writes exactly its number of blocks`(
        pattern: String, block: String
    ) throws {
        let rig = try rig.get()
        let (result, json) = try rig.json(
            "benchmark", "-B", "4", "-b", block, "--pattern", pattern, rig.source, rig.target,
            onlyOurs: true)
        #expect(result.status == 0, "\(result)")
        let bytes = try #require(json.int("blockSize"))
        let total = (rig.size + bytes - 1) / bytes
        for (index, row) in try #require(json.records("rows")).enumerated() {
            let changed = try #require(row.int("changed"))
            let blocks = (changed + bytes - 1) / bytes
            #expect(abs(blocks * 4 - total * (index + 1)) <= 4)
            #expect(row.double("percent") == Double(25 * (index + 1)))
            #expect(row.int("different") == changed && row.int("written") == changed)
        }
        #expect(try areEqual(rig.source, rig.target))
    }

    @Test func `zeros of the source are restored by zeroing, not by writing`() throws {
        let rig = try rig.get()
        let zeros = try rig.scratch.sparseFile("zeros", size: 1 << 20)
        let (_, json) = try rig.json("benchmark", "-B", "1", zeros, rig.target, onlyOurs: true)
        let row = try #require(json.records("rows")?.first)
        #expect(row.int("written") == 0 && row.int("zeroed") == 1 << 20)
        #expect(try areEqual(zeros, rig.target))
    }

    @Test func `a seed chooses the same blocks each time, and another seed others`() throws {
        let rig = try rig.get()
        _ = try rig.run("benchmark", "-B", "1", rig.source, rig.target, onlyOurs: true)
        // What a step has changed is seen by who runs in the place of rsync.
        try rig.fakeRsync(#"for last; do :; done; cp "$last" "$(mktemp "$0.XXXXXX")"; exit 1"#)
        for seed in ["5", "5", "6"] {
            let result = try rig.run(
                "benchmark", "-B", "2", "--pattern", "random", "--seed", seed, "-q", rig.source,
                rig.target, onlyOurs: true)
            #expect(result.status == 0)
        }
        let copies = try FileManager.default.contentsOfDirectory(atPath: rig.programs)
            .filter { $0 != "rsync" }.map { try [UInt8](contentsOf: "\(rig.programs)/\($0)") }
        #expect(copies.count == 6)
        // Half of the blocks for each seed; and all of them, which is one outcome for both.
        #expect(Set(copies).count == 3)
    }

    @Test(arguments: [
        ["benchmark", "-B", "0"], ["benchmark", "-B", "101"], ["-B", "0"], ["-B", "2", "-n"],
        ["-B", "2", "-W"], ["-B", "2", "--verify"], ["-B", "2", "--skip-unreadable"],
        ["benchmark", "-n"], ["benchmark", "--pattern", "zigzag"], ["benchmark", "--plot", ""],
        ["benchmark", "--plot", "/dev/null"], ["benchmark", "--plot", "/none/chart.svg"],
    ])
    func `an impossible benchmark is wrong usage, and nothing is written`(options: [String]) throws
    {
        let rig = try rig.get()
        let result = try RunningProgram(
            [program] + options + [rig.source, rig.target], environment: rig.environment()
        ).wait()
        #expect(result.status == 64, "\(result)")
        #expect(result.errors.hasPrefix("blkferry: ") && result.output.isEmpty)
        #expect(!FileManager.default.fileExists(atPath: rig.target))
    }

    @Test(arguments: [["benchmark"], ["-B", "2"]])
    func `a target on a server is wrong usage`(command: [String]) throws {
        let rig = try rig.get()
        let result = try RunningProgram(
            [program] + command + [rig.source, "http://127.0.0.1:1/dev/a"],
            environment: rig.environment()
        ).wait()
        #expect(result.status == 64)
        #expect(result.errors.contains("which has to be a device of this machine"))
    }

    @Test func `without a terminal a benchmark is refused, unless the environment permits it`()
        throws
    {
        let rig = try rig.get()
        for variables in [[:], ["BLKFERRY_BENCHMARK": "yes"]] {
            let result = try RunningProgram(
                [program, "benchmark", rig.source, rig.target], environment: variables
            ).wait()
            #expect(result.status == 2, "\(result)")
            #expect(result.errors.contains("there is no terminal to ask on"))
            #expect(result.errors.split(separator: "\n").count == 1)
            #expect(!FileManager.default.fileExists(atPath: rig.target))
        }
        let (_, json) = try blkferryJSON("benchmark", rig.source, rig.target)
        #expect(json.string("cause") == "not-allowed" && json.int("exitStatus") == 2)
        let result = try RunningProgram(
            [program, "-B", "1", "-q", rig.source, rig.target],
            environment: ["PDIFFCOPY_BENCHMARK": "allowed", "PATH": rig.programs]
        ).wait()
        #expect(result.status == 0)
        #expect(try areEqual(rig.source, rig.target))
    }

    @Test(arguments: [("y", 0), ("yes", 0), ("n", 2), ("", 2), ("maybe", 2)])
    func `on a terminal the benchmark asks, and only a yes permits it`(answer: String, status: Int)
        throws
    {
        let rig = try rig.get()
        let command = "\(program) benchmark -B 1 -q \(rig.source) \(rig.target)"
        let result = try run("sh", "-c", "echo '\(answer)' | script -qec '\(command)' /dev/null")
        #expect(result.status == status, "\(result)")
        #expect(result.output.contains("Go on? [y/N]"))
        #expect(FileManager.default.fileExists(atPath: rig.target) == (status == 0))
    }

    @Test func `the gate and the size policy apply to the first sync`() throws {
        let rig = try rig.get()
        let foreign = try rig.scratch.sparseFile("foreign", size: 32 << 20)
        try must("mkfs.ext4", "-q", "-F", foreign)
        let before = try [UInt8](contentsOf: foreign)
        let refused = try rig.run("benchmark", rig.source, foreign)
        #expect(refused.status == 2 && refused.errors.contains("--overwrite"), "\(refused)")
        let sized = try rig.run(
            "benchmark", "--overwrite", "--size-policy", "refuse", rig.source, foreign)
        #expect(sized.status == 2)
        #expect(try [UInt8](contentsOf: foreign) == before)

        // A prefix: what is behind it stays, and rsync, which would cut it off, is left out.
        let prefix = try rig.json(
            "benchmark", "-B", "2", "--overwrite", "--size-policy", "prefix", rig.source, foreign)
        #expect(prefix.result.status == 0, "\(prefix.result)")
        #expect(prefix.json.string("rsync") == nil)
        #expect(prefix.result.errors.contains("it would cut"))
        let after = try [UInt8](contentsOf: foreign)
        #expect(after.dropFirst(rig.size) == before.dropFirst(rig.size))
        #expect(try after.prefix(rig.size).elementsEqual([UInt8](contentsOf: rig.source)))

        let resized = try rig.run("benchmark", "-B", "2", "--overwrite", rig.source, foreign)
        #expect(resized.status == 0, "\(resized)")
        #expect(try areEqual(rig.source, foreign))
    }

    @Test func `an error before the run is one JSON object as well`() throws {
        let rig = try rig.get()
        let (result, json) = try rig.json("benchmark", rig.scratch.file("none"), rig.target)
        #expect(result.status == 3 && json.int("exitStatus") == 3)
        #expect(json.string("command") == "benchmark" && json.records("rows") == nil)
    }

    @Test func `a result that cannot be written is not success`() throws {
        let rig = try rig.get()
        let result = try RunningProgram(
            ["sh", "-c", "\(program) benchmark -B 1 \(rig.source) \(rig.target) > /dev/full"],
            environment: rig.environment()
        ).wait()
        #expect(result.status == 3)
        #expect(try areEqual(rig.source, rig.target))
    }
}
