// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Glibc
import LinuxIO
import SystemPackage
import TestSupport
import Testing

@Suite(.blocking, .timeLimit(.minutes(60))) struct ProgramRunTests {
    private func shell(
        _ script: String, _ reading: ProgramRun.Reading, unless isCancelled: () -> Bool = { false }
    ) throws(Errno) -> ProgramRun {
        try ProgramRun("/bin/sh", ["-c", script], reading: reading, unless: isCancelled)
    }

    @Test func `a program's whole output is kept, apart from its errors`() throws {
        let run = try shell(
            "seq 100000; echo bad >&2; echo worse >&2; exit 3", .wholeOutput(limit: 1 << 20))
        #expect(run.text == (1...100_000).map { "\($0)\n" }.joined())
        #expect(run.errorLines == ["bad", "worse"])
        #expect(run.failure == "it ended with status 3")
    }

    @Test func `output as long as the limit is whole, one byte more is a failure`() throws {
        let script = "head -c 200000 /dev/zero"
        let whole = try shell(script, .wholeOutput(limit: 200_000))
        #expect(whole.failure == nil && whole.bytes.count == 200_000)
        let cut = try shell(script, .wholeOutput(limit: 199_999))
        #expect(cut.failure == "it printed more than 199999 bytes")
    }

    @Test func `a program whose output does not end is killed`() throws {
        let run = try shell("exec yes", .wholeOutput(limit: 1000))
        #expect(run.failure == "it printed more than 1000 bytes")
    }

    @Test func `the last 64 KiB of a program's errors are kept`() throws {
        let run = try shell("seq 100000; seq 5 >&2", .outputAndErrors)
        #expect(run.failure == nil && run.bytes.count == 64 << 10)
        #expect(run.lines.suffix(6) == ["100000", "1", "2", "3", "4", "5"])
        #expect(try shell("seq 9; seq 5 >&2", .errors).lines == ["1", "2", "3", "4", "5"])
        let many = try shell("seq 100000 >&2", .wholeOutput(limit: 0))
        #expect(many.failure == nil && many.errorLines.last == "100000")
    }

    @Test func `a cancelled program is killed with all that it has started`() throws {
        var looks = 0
        let run = try shell("sleep 1000 & sleep 1000", .wholeOutput(limit: 10)) {
            looks += 1
            return looks > 2
        }
        #expect(run.failure == "signal 9 ended it")
    }

    @Test func `the children of an ended program are killed, and its output is whole`() throws {
        let run = try shell("echo told; sleep 1000 & exit 0", .wholeOutput(limit: 10))
        #expect(run.failure == nil && run.text == "told\n")
    }

    @Test(
        .enabled(if: SilentDisk.isPossible, "needs root, FUSE and qemu-storage-daemon"), .silentDisk
    )
    func `a program that waits for a silent device is left behind`() throws {
        let disk = try SilentDisk()
        var looks = 0
        let run = try ProgramRun(
            "/bin/dd", ["if=\(disk.path)", "iflag=direct", "bs=4096", "count=1", "of=/dev/null"],
            reading: .wholeOutput(limit: 10), mayBeLeftBehind: true
        ) {
            // Before it waits for the disk, a signal ends it.
            looks += isWaiting("if=\(disk.path)\0iflag=direct") ? 1 : 0
            return looks > 10
        }
        #expect(run.failure == "it was killed and does not end")
        #expect(!run.hasExited && ProgramRun.hasLeftBehind("/bin/dd"))
    }

    /// Whether a program with these arguments waits for a device: state D of proc_pid_stat(5).
    private func isWaiting(_ arguments: String) -> Bool {
        namesInDirectory("/proc").contains { process in
            readSmallFile("/proc/\(process)/cmdline")?.contains(arguments) == true
                && readSmallFile("/proc/\(process)/stat")?.contains(") D ") == true
        }
    }

    @Test func `a program that may be left behind and ends is not left behind`() throws {
        var looks = 0
        let run = try ProgramRun(
            "/bin/sleep", ["1000"], reading: .wholeOutput(limit: 10), mayBeLeftBehind: true
        ) {
            looks += 1
            return looks > 2
        }
        #expect(run.failure == "signal 9 ended it" && !ProgramRun.hasLeftBehind("/bin/sleep"))
    }

    @Test func `a missing program cannot be started`() {
        #expect(throws: Errno.noSuchFileOrDirectory) {
            try ProgramRun("/none/such", [], reading: .errors) { false }
        }
    }

    @Test func `a program inherits only its standard streams, also if libraries have files open`()
        throws
    {
        // dup(2) leaves it open in programs that are started.
        let file = try OwnedDescriptor.open("/dev/null", flags: O_RDONLY)
        let open = OwnedDescriptor(owning: dup(file.rawValue))
        let run = try ProgramRun(
            "/bin/ls", ["/proc/self/fd"], reading: .wholeOutput(limit: 4096), unless: { false })
        // The last one is the directory.
        #expect(run.lines == ["0", "1", "2", "3"] && run.failure == nil)
        _ = consume open
    }
}
