// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// Runs that do not come to their end.
@Suite(.blocking, .enabled(if: isRoot, "loop devices need root")) struct InterruptionTests {
    private let size = 192 << 20
    private let source: LoopDevice
    private let target: LoopDevice

    init() throws {
        source = try LoopDevice(size: size)
        target = try LoopDevice(size: size)
        try must("dd", "if=/dev/urandom", "of=\(source.path)", "bs=1M", "oflag=direct", "count=192")
    }

    /// - Parameter options: of strace(1).
    private func start(_ options: String...) throws -> RunningProgram {
        let command = [program, "-c", "1", "--progress", "json", source.path, target.path]
        let sync = try RunningProgram(slowReads(by: 20) + options + command)
        // Until it writes; then it also has its signals blocked.
        let block = { try [UInt8](contentsOf: source.path, count: 4096) }
        let wanted = try block()
        while try sync.isRunning && [UInt8](contentsOf: target.path, count: 4096) != wanted {
            usleep(2_000)
        }
        return sync
    }

    @Test(arguments: [SIGINT, SIGTERM, SIGHUP])
    func `a signal ends the run in order, and a second run finishes the job`(signal: Int32) throws {
        let sync = try start()
        sync.signal(signal)
        let result = try sync.wait()
        #expect(result.status == 130, "\(result)")
        #expect(result.output.contains("incomplete"))
        #expect(result.errors.contains("interrupted"))
        #expect(try !areEqual(source.path, target.path))

        let (second, json) = try blkferryJSON(source.path, target.path)
        #expect(second.status == 0)
        #expect(try #require(json.int("written")) < size)
        #expect(try areEqual(source.path, target.path))
    }

    /// Exit handlers of libraries would free what the other threads still use.
    @Test func `a second signal ends the program at once, without exit handlers`() throws {
        // The flush after the first signal lasts until the second one.
        let sync = try start(
            "-E", "LD_DEBUG=libs", "-e", "trace=pread64,fdatasync", "-e",
            "inject=fdatasync:delay_enter=20000000")
        sync.signal(SIGINT)
        try sync.waitUntil(says: "interrupted, ")
        sync.signal(SIGTERM)
        let result = try sync.wait()
        #expect(result.status == 130)
        #expect(result.errors.contains("interrupted twice"))
        #expect(result.errors.contains("calling init: "))
        #expect(!result.errors.contains("calling fini: "))
    }

    @Test func `a stray SIGUSR2 does not end the watch over signals`() throws {
        let sync = try start()
        sync.signal(SIGUSR2)
        usleep(20_000)
        sync.signal(SIGTERM)
        #expect(try sync.wait().status == 130)
    }

    @Test func `a progress bar is one line, removed at the end`() throws {
        let sync = try RunningProgram(
            slowly("--progress", "bar", source.path, target.path))
        let result = try sync.wait()
        #expect(result.status == 0)
        #expect(result.errors.contains(" % ") && result.errors.contains(" left"))
        #expect(!result.errors.contains("\n"))
        #expect(result.errors.hasSuffix("\r\u{1B}[K"))
    }

    @Test func `after SIGKILL a second run finishes the job`() throws {
        for milliseconds in [0, 20, 80] {
            let sync = try start()
            usleep(UInt32(milliseconds) * 1000)
            sync.signal(SIGKILL)
            _ = try sync.wait()
        }
        #expect(try blkferry("--verify", source.path, target.path).status == 0)
        #expect(try areEqual(source.path, target.path))
    }
}
