// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import Glibc
import TestSupport
import Testing

/// Goes before a program, each of whose reads of a file or device takes some milliseconds longer.
func slowReads(of path: String, by milliseconds: Int) -> [String] {
    [
        "strace", "-D", "-f", "-P", path, "-o", "/dev/null", "-e", "trace=pread64", "-e",
        "inject=pread64:delay_enter=\(milliseconds * 1000)",
    ]
}

/// What a run with `--json` has printed.
func printedRecord(of result: ProgramResult) throws -> Record {
    let object = try JSONSerialization.jsonObject(with: Data(result.output.utf8))
    return Record(try #require(object as? [String: Any]))
}

/// Runs the program with `--stop-after` until a run has come to compare something.
///
/// On a busy machine, to open the devices may take seconds.
func night(
    _ prefix: [String], _ arguments: [String], environment: [String: String] = [:]
) throws -> (result: ProgramResult, record: Record) {
    for seconds in [2, 4, 8, 16, 32] {
        let result = try RunningProgram(
            prefix + [program, "-c", "1", "--json", "--stop-after", "\(seconds)"] + arguments,
            environment: environment
        ).wait()
        let record = try printedRecord(of: result)
        guard result.status == 7, record.int("compared") ?? 0 < 3 << 20 else {
            #expect(result.status == 7, "\(result)")
            return (result, record)
        }
    }
    throw NoNight()
}

private struct NoNight: Error {}

/// `--stop-after` and `--checkpoint` on the command line.
@Suite(.blocking, .timeLimit(.minutes(60))) struct CheckpointTests {
    private let scratch: ScratchDirectory
    private let source: String
    private let target: String
    private let file: String
    private let size = 48 << 20

    init() throws {
        scratch = try ScratchDirectory()
        source = try scratch.filledFile("source", size: size, seed: 1)
        target = try scratch.sparseFile("target", size: size)
        file = scratch.file("checkpoint")
    }

    private var exists: Bool { FileManager.default.fileExists(atPath: file) }

    private func slowly(_ arguments: [String]) throws -> RunningProgram {
        try RunningProgram(
            slowReads(of: source, by: 60) + [program, "-c", "1", "--json"] + arguments)
    }

    /// Waits until a run has written some windows.
    private func waitForWrites(_ run: RunningProgram, of path: String) throws {
        let place = 4 << 20
        let wanted = try [UInt8](contentsOf: source, count: place + 4096).suffix(4096)
        while run.isRunning {
            let bytes = (try? [UInt8](contentsOf: path, count: place + 4096)) ?? []
            if bytes.count == place + 4096, bytes.suffix(4096).elementsEqual(wanted) { return }
            usleep(5_000)
        }
    }

    /// Continues a run, which must copy only the rest.
    private func finish(after done: Int, _ from: String? = nil, _ to: String? = nil) throws {
        let (result, record) = try blkferryJSON(
            "--verify", "--checkpoint", file, from ?? source, to ?? target)
        #expect(result.status == 0, "\(result)")
        #expect(result.errors == "")
        let use = try #require(record.record("checkpoint"))
        #expect(use.int("resumed") == done && use.string("fallback") == nil)
        #expect(try #require(use.int("sampled")) * 20 <= done)
        #expect(record.int("unchanged") == done && record.int("compared") == size - done)
        #expect(record.bool("verified") == true)
        #expect(!exists)
    }

    @Test func `--stop-after ends a run in order with 7, and without a checkpoint all is compared`()
        throws
    {
        let (result, record) = try night(slowReads(of: source, by: 250), [source, target])
        #expect(result.errors.contains("stopping as asked"))
        #expect(result.errors.contains("sync: stopped as asked, after "))
        #expect(result.errors.contains("The next run compares everything again"))
        #expect(record.bool("stopped") == true && record.bool("interrupted") == false)
        #expect(record.bool("flushed") == true && record.int("exitStatus") == 7)
        #expect(record.record("checkpoint") == nil)
        #expect(try #require(record.int("compared")) < size)
        let (second, rest) = try blkferryJSON("--stop-after", "1h", source, target)
        #expect(second.status == 0 && rest.bool("stopped") == false)
        #expect(rest.int("compared") == size)
        #expect(try areEqual(source, target))
        let wrong = try blkferry("--stop-after", "0", source, target)
        #expect(wrong.status == 64 && wrong.errors.contains("must be more than 0"))
    }

    @Test func `verify stops, too, and says nothing of the rest`() throws {
        try must("cp", source, target)
        let run = try RunningProgram(
            slowReads(of: source, by: 250) + [
                program, "verify", "-c", "1", "--stop-after", "2s", source, target,
            ])
        let result = try run.wait()
        #expect(result.status == 7, "\(result)")
        #expect(result.errors.contains("verify: stopped as asked, after "))
        #expect(result.output.contains("incomplete"))
    }

    @Test func `a run that is stopped while it waits has written nothing`() throws {
        let holder = try RunningProgram(
            slowReads(of: source, by: 250) + [program, "-c", "1", source, target])
        let first = try [UInt8](contentsOf: source, count: 4096)
        while holder.isRunning, try [UInt8](contentsOf: target, count: 4096) != first {
            usleep(5_000)
        }
        let waiting = try blkferry(
            "--wait", "1h", "--stop-after", "1s", "--checkpoint", file, source, target)
        holder.signal(SIGKILL)
        #expect(waiting.status == 7, "\(waiting)")
        #expect(waiting.errors.contains("stopped as asked, nothing was written"))
        #expect(!exists)
    }

    @Test func `three nights with a checkpoint read each window of the source once`() throws {
        var done = 0
        for _ in 0..<2 {
            let (result, record) = try night(
                slowReads(of: source, by: 250), ["--checkpoint", file, source, target])
            let use = try #require(record.record("checkpoint"))
            #expect(try #require(use.int("resumed")) >= done)
            done = try #require(use.int("done"))
            #expect(try use.int("resumed") == done - #require(record.int("compared")))
            #expect(result.errors.contains("continues after"))
        }
        try #require(done > 2 << 20 && done < size)
        // Counted as system calls: the rest, samples, and what the gate and libblkid read.
        let trace = scratch.file("trace")
        let last = try RunningProgram([
            "strace", "-f", "-P", source, "-o", trace, "-e", "trace=pread64", program, "-c", "1",
            "--checkpoint", file, source, target,
        ]).wait()
        #expect(last.status == 0, "\(last)")
        let bytes = try systemCalls(inTrace: trace).filter { $0.contains("pread64(") }
            .compactMap { $0.split(separator: " ").last.flatMap { Int($0) } }
            .reduce(0) { $0 + max(0, $1) }
        #expect(bytes >= size - done)
        #expect(bytes <= size - done + done / 20 + (2 << 20))
        #expect(try areEqual(source, target))
        #expect(!exists)
    }

    @Test(arguments: [SIGINT, SIGTERM, SIGHUP])
    func `a signal leaves a checkpoint`(signal: Int32) throws {
        let run = try slowly(["--checkpoint", file, source, target])
        try waitForWrites(run, of: target)
        run.signal(signal)
        let result = try run.wait()
        #expect(result.status == 130, "\(result)")
        let record = try printedRecord(of: result)
        #expect(record.bool("interrupted") == true && record.bool("stopped") == false)
        try finish(after: try #require(record.record("checkpoint")?.int("done")))
        #expect(try areEqual(source, target))
    }

    @Test func `a killed run leaves a file that claims nothing`() throws {
        let first = try slowly(["--checkpoint", file, source, target])
        try waitForWrites(first, of: target)
        first.signal(SIGTERM)
        #expect(try first.wait().status == 130)
        let killed = try slowly(["--checkpoint", file, source, target])
        let marked = { (try? String(contentsOfFile: file, encoding: .utf8))?.contains("running") }
        while killed.isRunning, marked() != true { usleep(2_000) }
        usleep(300_000)
        killed.signal(SIGKILL)
        _ = try killed.wait()
        #expect(exists)
        let (result, record) = try blkferryJSON("--checkpoint", file, source, target)
        #expect(result.status == 0)
        #expect(result.errors.contains("falls back to a full comparison: \(file)"))
        #expect(result.errors.contains("was killed"))
        #expect(record.int("compared") == size && !exists)
        #expect(record.record("checkpoint")?.string("fallback") == "unfinished")
        #expect(try areEqual(source, target))
    }

    @Test(.enabled(if: isRoot, "mounting needs root"))
    func `a full file system leaves a checkpoint of what could be written`() throws {
        let mount = try LoopMount(size: 40 << 20, make: ["mkfs.ext4", "-q"])
        let full = "\(mount.path)/target"
        try must("truncate", "-s", "\(size)", full)
        let (result, record) = try blkferryJSON(
            "-c", "1", "--checkpoint", file, source, full)
        #expect(result.status == 3, "\(result)")
        let done = try #require(record.record("checkpoint")?.int("done"))
        #expect(done > 8 << 20 && done < size)
        let again = try blkferryJSON("-c", "1", "--checkpoint", file, source, full)
        #expect(again.result.status == 3)
        #expect(again.json.record("checkpoint")?.int("resumed") == done)
        #expect(again.json.int("unchanged") == done)
    }

    @Test func `a checkpoint of a replica is beside its state`() throws {
        let state = ["STATE_DIRECTORY": scratch.file("state")]
        func names() throws -> [String] {
            try FileManager.default.contentsOfDirectory(atPath: scratch.file("state"))
                .filter { $0.hasSuffix(".checkpoint") }
        }
        let (_, first) = try night(
            slowReads(of: source, by: 250), ["--replica", "web", source, target],
            environment: state)
        let done = try #require(first.record("checkpoint")?.int("done"))
        #expect(try names().count == 1)
        let second = try RunningProgram(
            [program, "--json", "--replica", "web", source, target], environment: state
        ).wait()
        #expect(second.status == 0 && second.errors == "", "\(second)")
        #expect(try printedRecord(of: second).record("checkpoint")?.int("resumed") == done)
        #expect(try areEqual(source, target))
        #expect(try names().isEmpty)
    }

    @Test func `a checkpoint does not go with snapshots, benchmarks and comparisons`() throws {
        for options in [["--snapshot"], ["--since", "vg/s"], ["--benchmark", "1"]] {
            let result = try RunningProgram(
                [program] + options + ["--checkpoint", file, source, target]
            ).wait()
            #expect(result.status == 64 && result.errors.contains("--checkpoint"), "\(result)")
        }
        #expect(try blkferry("refresh", "--checkpoint", file, source, target).status == 64)
        #expect(try blkferry("verify", "--checkpoint", file, source, target).status == 64)
        #expect(try blkferry("--checkpoint", "", source, target).status == 64)
    }
}
