// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// Benchmarks that do not come to their end.
@Suite(.blocking, .timeLimit(.minutes(60))) struct BenchmarkInterruptionTests {
    private func isAlive(_ process: Int32) -> Bool { kill(process, 0) == 0 }

    @Test(arguments: [SIGINT, SIGTERM, SIGHUP])
    func `a signal while rsync runs ends rsync and blkferry, and the target is equal`(signal: Int32)
        throws
    {
        let rig = try BenchmarkRig()
        // Its child is of the same group.
        try rig.fakeRsync("echo $$ > \"$0.pid\"; kill -\(signal) $PPID; sleep 600; exit 0")
        let (result, json) = try rig.json(
            "benchmark", "-B", "4", rig.source, rig.target, onlyOurs: true)
        #expect(result.status == 130, "\(result)")
        #expect(result.errors.contains("interrupted"))
        #expect(json.bool("interrupted") == true && json.bool("equal") == true)
        #expect(json.int("exitStatus") == 130)
        #expect(try areEqual(rig.source, rig.target))
        let text = try String(contentsOfFile: "\(rig.programs)/rsync.pid", encoding: .utf8)
        #expect(!isAlive(try #require(Int32(text.dropLast()))))
    }

    @Test func `a signal while blkferry writes ends the run, and the target is equal`() throws {
        let rig = try BenchmarkRig(size: 4 << 20)
        let server = try ServeProcess(rig.source)
        try must("cp", rig.source, rig.target)
        let run = try RunningProgram(
            [program, "-B", "1", "--bwlimit", "500K", server.url(rig.source), rig.target],
            environment: rig.environment(onlyOurs: true))
        try waitUntilChanged(rig, run)
        run.signal(SIGTERM)
        let result = try run.wait()
        #expect(result.status == 130, "\(result)")
        #expect(
            result.errors.contains(
                "making \(rig.target) equal to \(server.url(rig.source)) again\n"))
        #expect(try areEqual(rig.source, rig.target))
    }

    @Test func `a second signal ends the benchmark at once, and a plain sync repairs the target`()
        throws
    {
        let rig = try BenchmarkRig(size: 8 << 20)
        let server = try ServeProcess(rig.source)
        try must("cp", rig.source, rig.target)
        let run = try RunningProgram(
            [
                program, "-B", "1", "-c", "1", "--bwlimit", "500K", server.url(rig.source),
                rig.target,
            ], environment: rig.environment(onlyOurs: true))
        try waitUntilChanged(rig, run)
        run.signal(SIGINT)
        try run.waitUntil(says: " again\n")
        run.signal(SIGINT)
        let result = try run.wait()
        #expect(result.status == 130, "\(result)")
        #expect(result.errors.contains("interrupted twice, it may differ"))
        #expect(result.errors.contains("blkferry \(server.url(rig.source)) \(rig.target)\n"))
        #expect(try !areEqual(rig.source, rig.target))
        #expect(try blkferry(server.url(rig.source), rig.target).status == 0)
        #expect(try areEqual(rig.source, rig.target))
    }

    /// Until the first block of the target is another than that of the source.
    private func waitUntilChanged(_ rig: BenchmarkRig, _ run: RunningProgram) throws {
        let wanted = try [UInt8](contentsOf: rig.source, count: 4096)
        while try run.isRunning && [UInt8](contentsOf: rig.target, count: 4096) == wanted {
            usleep(2_000)
        }
    }

    @Test func `after SIGKILL a plain sync repairs the target`() throws {
        let rig = try BenchmarkRig()
        try rig.fakeRsync("kill -KILL $PPID")
        let result = try rig.run("benchmark", "-B", "1", rig.source, rig.target, onlyOurs: true)
        #expect(result.status == 128 + 9)
        #expect(try !areEqual(rig.source, rig.target))
        #expect(try blkferry(rig.source, rig.target).status == 0)
        #expect(try areEqual(rig.source, rig.target))
    }

    @Test func `an interrupted first sync is like any interrupted sync`() throws {
        let rig = try BenchmarkRig(size: 8 << 20)
        let server = try ServeProcess(rig.source)
        let run = try RunningProgram(
            [
                program, "-B", "2", "-c", "1", "--bwlimit", "500K", server.url(rig.source),
                rig.target,
            ], environment: rig.environment(onlyOurs: true))
        while run.isRunning, !FileManager.default.fileExists(atPath: rig.target) { usleep(2_000) }
        run.signal(SIGINT)
        let result = try run.wait()
        #expect(result.status == 130, "\(result)")
        #expect(result.errors.contains("A second run finishes the job"))
        #expect(try !areEqual(rig.source, rig.target))
    }

    @Test
    func `the error names a source that cannot be restored, with the command that repairs it`()
        throws
    {
        let rig = try BenchmarkRig()
        try rig.fakeRsync("mv '\(rig.source)' '\(rig.source)-away'; exit 1")
        let (result, json) = try rig.json(
            "benchmark", "-B", "2", "--size-policy", "refuse", rig.source, rig.target,
            onlyOurs: true)
        #expect(result.status == 3, "\(result)")
        #expect(json.bool("equal") == false && json.int("exitStatus") == 3)
        #expect(
            result.errors.contains(
                "\(rig.target): benchmark: it now differs from \(rig.source)\n"
                    + "  This makes it equal again: blkferry --size-policy refuse \(rig.source) "
                    + "\(rig.target)\n"), "\(result)")
        #expect(try !areEqual("\(rig.source)-away", rig.target))
        try must("mv", "\(rig.source)-away", rig.source)
        #expect(try blkferry("--size-policy", "refuse", rig.source, rig.target).status == 0)
        #expect(try areEqual(rig.source, rig.target))
    }

    @Test func `another file in the place of the target is not changed`() throws {
        let rig = try BenchmarkRig()
        let other = try rig.scratch.sparseFile("other", size: rig.size)
        try rig.fakeRsync("mv '\(other)' '\(rig.target)'; exit 1")
        let (result, json) = try rig.json(
            "benchmark", "-B", "2", rig.source, rig.target, onlyOurs: true)
        #expect(result.status == 3, "\(result)")
        #expect(result.errors.contains("it is another device or file now"))
        #expect(json.records("rows")?.isEmpty == true)
        #expect(try [UInt8](contentsOf: rig.target).allSatisfy { $0 == 0 })
    }
}
