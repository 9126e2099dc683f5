// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// Runs whose standard output or standard error is a full pipe without a reader.
@Suite(.blocking, .timeLimit(.minutes(60))) struct FullPipeTests {
    private let scratch: ScratchDirectory
    private let source: String
    private let target: String
    private let pipe = Pipe()
    private var writer: Int32 { pipe.fileHandleForWriting.fileDescriptor }

    init() throws {
        scratch = try ScratchDirectory()
        source = scratch.file("source")
        target = scratch.file("target")
        try must("dd", "if=/dev/urandom", "of=\(source)", "bs=1M", "count=64")
        let page = [UInt8](repeating: 0, count: 4096)
        var polled = pollfd(fd: writer, events: Int16(POLLOUT), revents: 0)
        while poll(&polled, 1, 0) > 0 { _ = write(writer, page, page.count) }
    }

    /// Starts a sync without a reader of its messages, and waits until it writes; then it also has
    /// its signals blocked.
    private func startWithoutReader(progress: String) throws -> RunningProgram {
        // The tracer prints elsewhere, since it would wait for the reader as well.
        let traced =
            slowReads(by: 20) + ["sh", "-c", "exec \"$0\" \"$@\" 2>&3 3>&-"]
            + [program, "-c", "1", "--progress", progress, source, target]
        let sync = try RunningProgram(
            ["sh", "-c", "exec \"$0\" \"$@\" 3>&2 2>/dev/null"] + traced, errors: writer)
        let wanted = try [UInt8](contentsOf: source, count: 4096)
        while sync.isRunning, (try? [UInt8](contentsOf: target, count: 4096)) != wanted {
            usleep(2_000)
        }
        return sync
    }

    /// Waits until a condition holds or the program has ended, for at most a minute.
    private func wait(_ run: RunningProgram, until isMet: () throws -> Bool) rethrows {
        let deadline = ContinuousClock.now + .seconds(60)
        while run.isRunning, try !isMet(), ContinuousClock.now < deadline { usleep(20_000) }
    }

    /// Whether only one thread is left, the one that prints the result.
    private func hasOneThread(_ run: RunningProgram) throws -> Bool {
        let tasks = "/proc/\(run.processID)/task"
        return try FileManager.default.contentsOfDirectory(atPath: tasks).count == 1
    }

    /// Kills a program that does not end.
    private func end(
        of run: RunningProgram, meanwhile action: () -> Void = {}
    ) throws -> ProgramResult {
        wait(run) {
            action()
            return false
        }
        run.signal(SIGKILL)
        return try run.wait()
    }

    /// Sends signals until the program has ended: one from the last moment of the work is ignored.
    private func endBySignals(_ run: RunningProgram) throws -> ProgramResult {
        try end(of: run) { run.signal(SIGTERM) }
    }

    @Test(arguments: ["none", "bar", "json"])
    func `a second signal ends a run whose messages nobody reads`(progress: String) throws {
        let sync = try startWithoutReader(progress: progress)
        sync.signal(SIGTERM)
        // Another signal, because one that is pending already is not sent twice.
        sync.signal(SIGINT)
        let result = try end(of: sync)
        #expect(result.status == 130, "\(result)")
    }

    @Test func `a second signal also ends it after the first one has ended the work`() throws {
        let sync = try startWithoutReader(progress: "json")
        sync.signal(SIGTERM)
        try wait(sync) { try hasOneThread(sync) }
        #expect(sync.isRunning)
        let result = try endBySignals(sync)
        #expect(result.status == 130, "\(result)")
        #expect(try !areEqual(source, target))
    }

    @Test func `a signal ends a finished run whose result nobody reads`() throws {
        let sync = try RunningProgram([program, source, target], output: writer)
        try wait(sync) { try areEqual(source, target) && hasOneThread(sync) }
        #expect(sync.isRunning)
        let result = try endBySignals(sync)
        #expect(result.status == 130, "\(result)")
        #expect(try areEqual(source, target))
    }
}
