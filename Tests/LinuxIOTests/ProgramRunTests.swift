// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Glibc
import LinuxIO
import SystemPackage
import TestSupport
import Testing

@Suite(.blocking, .timeLimit(.minutes(30))) struct ProgramRunTests {
    private func shell(
        _ script: String, _ reading: ProgramRun.Reading, unless isOver: () -> Bool = { false }
    ) throws(Errno) -> ProgramRun {
        try ProgramRun("/bin/sh", ["-c", script], reading: reading, unless: isOver)
    }

    @Test func `all of the output is kept, and apart from it what went wrong`() throws {
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
        #expect(cut.failure == "it told more than 199999 bytes")
    }

    @Test func `a program that does not stop telling is ended`() throws {
        let run = try shell("exec yes", .wholeOutput(limit: 1000))
        #expect(run.failure == "it told more than 1000 bytes")
    }

    @Test func `of the rest the last 64 KiB are kept`() throws {
        let run = try shell("seq 100000; seq 5 >&2", .outputAndErrors)
        #expect(run.failure == nil && run.bytes.count == 64 << 10)
        #expect(run.lines.suffix(6) == ["100000", "1", "2", "3", "4", "5"])
        #expect(try shell("seq 9; seq 5 >&2", .errors).lines == ["1", "2", "3", "4", "5"])
        let many = try shell("seq 100000 >&2", .wholeOutput(limit: 0))
        #expect(many.failure == nil && many.errorLines.last == "100000")
    }

    @Test func `it is ended with all that it has started`() throws {
        var looks = 0
        let run = try shell("sleep 1000 & sleep 1000", .wholeOutput(limit: 10)) {
            looks += 1
            return looks > 2
        }
        #expect(run.failure == "signal 9 ended it")
    }

    @Test func `what it leaves behind is ended, and its output is whole all the same`() throws {
        let run = try shell("echo told; sleep 1000 & exit 0", .wholeOutput(limit: 10))
        #expect(run.failure == nil && run.text == "told\n")
    }

    @Test func `a program that is not there cannot be started`() {
        #expect(throws: Errno.noSuchFileOrDirectory) {
            try ProgramRun("/none/such", [], reading: .errors) { false }
        }
    }

    @Test func `nothing is inherited but the streams, also of what libraries have open`() throws {
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
