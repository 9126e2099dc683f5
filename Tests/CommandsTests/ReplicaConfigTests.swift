// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// `refresh --config` where there is no LVM; the scenario `refresh-config` of tools/lab refreshes.
@Suite(.blocking, .timeLimit(.minutes(60))) struct ReplicaConfigTests {
    private let scratch: ScratchDirectory
    private let file: String

    init() throws {
        scratch = try ScratchDirectory()
        file = scratch.file("web.conf")
    }

    private func write(_ lines: String..., mode: Int = 0o600) throws {
        try lines.joined(separator: "\n").write(toFile: file, atomically: true, encoding: .utf8)
        try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: file)
    }

    /// The error of a source that is an image.
    private func noVolume(_ path: String) -> String {
        "blkferry: \(path): find volume: it is no logical volume\n"
    }

    @Test func `the run has the source and the options of the file`() throws {
        let image = try scratch.sparseFile("image", size: 4096)
        try write("source = \(image)", "target = \(scratch.file("new"))", "json")
        let result = try blkferry("refresh", "--config", file)
        #expect(result.status == 3)
        #expect(result.errors == noVolume(image))
        #expect(result.output.hasPrefix(#"{"command":"refresh","errors":"#))
        #expect(!FileManager.default.fileExists(atPath: scratch.file("new")))
    }

    @Test(arguments: [
        ["--move-backup-gpt", "--size-policy", "prefix", "--config", "FILE"],
        ["--config=FILE", "--move-backup-gpt", "--size-policy=prefix"],
    ])
    func `an option of the command line takes precedence, before and behind the file`(
        words: [String]
    ) throws {
        let image = try scratch.sparseFile("image", size: 4096)
        // With this policy --move-backup-gpt is wrong usage.
        try write("source = \(image)", "target = /new", "size-policy = resize")
        let arguments = words.map { $0.replacing("FILE", with: file) }
        let result = try RunningProgram([program, "refresh"] + arguments).wait()
        #expect(result.status == 3)
        #expect(result.errors == noVolume(image))
    }

    @Test func `each target has a run, also after one that failed`() throws {
        let image = try scratch.sparseFile("image", size: 4096)
        let (one, two) = (scratch.file("one"), scratch.file("two"))
        try write("source = \(image)", "target = \(one)", "target = \(two)")
        let result = try blkferry("refresh", "--config", file)
        #expect(result.status == 3)
        #expect(result.errors == noVolume(image) + noVolume(image))
    }

    @Test func `the priorities of the file are those of the run`() throws {
        let image = try scratch.sparseFile("image", size: 4096)
        try write("source = \(image)", "target = /new", "nice = 7", "ionice = best-effort:6")
        // What the kernel answered.
        let calls = scratch.file("calls")
        let result = try RunningProgram([
            "strace", "-f", "-o", calls, "-e", "trace=setpriority,ioprio_set", program, "refresh",
            "--config", file,
        ]).wait()
        #expect(result.errors == noVolume(image))
        let text = try String(contentsOfFile: calls, encoding: .utf8)
        #expect(text.contains("setpriority(PRIO_PROCESS, 0, 7)") && !text.contains(" = -1"))
        #expect(text.contains(/ioprio_set\(.*(IOPRIO_CLASS_BE, 6|0x4006)/), "\(text)")
    }

    @Test(arguments: ["best-effort:8", "idle:1", "realtime:", "rt", ""])
    func `another I/O class is wrong usage`(name: String) throws {
        let result = try blkferry("refresh", "--ionice=\(name)", "/a", "/b")
        #expect(result.status == 64 && result.errors.contains("--ionice"), "\(result)")
    }

    @Test func `a wrong line of any target is wrong usage, and nothing is refreshed`() throws {
        try write("source = vg0/web", "target = /new", "target = http://host")
        let result = try blkferry("refresh", "--config", file)
        #expect(result.status == 64 && result.output.isEmpty)
        #expect(result.errors.hasPrefix("blkferry: \(file):3: http://host"), "\(result)")
        #expect(result.errors.hasSuffix("\n  See blkferry-replicas(5).\n"))
    }

    @Test func `verify takes the options of the file that it has, and leaves out the others`()
        throws
    {
        let image = try scratch.sparseFile("image", size: 4096)
        try write(
            "source = \(image)", "target = /one", "target = /two", "size-policy = resize",
            "wait = 1h", "verify", "keep = 2", "snapshot-target = day", "after-run = /bin/true",
            "nice = 1", "block-size = 8K", "json")
        let result = try blkferry("verify", "--config", file, "--sample", "5")
        // --config implies --base, which needs a volume.
        #expect(result.status == 3)
        #expect(result.errors == noVolume(image) + noVolume(image))
        #expect(result.output.hasPrefix(#"{"command":"verify","errors":"#))

        try write("source = \(image)", "target = /one", "block-size = 5")
        #expect(try blkferry("verify", "--config", file).status == 64)
    }

    @Test(arguments: [0o620, 0o602, 0o666])
    func `a file that others can change is refused`(mode: Int) throws {
        try write("source = vg0/web", "target = /new", mode: mode)
        let result = try blkferry("refresh", "--config", file)
        #expect(result.status == 64)
        #expect(result.errors == "blkferry: \(file): others can change it: chmod go-w it\n")
    }

    @Test(.enabled(if: isRoot, "needs root"))
    func `a file of another user is refused`() throws {
        try write("source = vg0/web", "target = /new", mode: 0o644)
        try must("chown", "nobody", file)
        let result = try blkferry("refresh", "--config", file)
        #expect(result.status == 64)
        #expect(result.errors == "blkferry: \(file): its owner is another user: chown it\n")
    }

    @Test func `a name without a slash is that of a file in /etc/blkferry/replicas`() throws {
        let result = try blkferry("refresh", "--config", "no-such-replica")
        #expect(result.status == 64)
        #expect(
            result.errors.hasPrefix(
                "blkferry: /etc/blkferry/replicas/no-such-replica.conf: open: "))
    }

    @Test(arguments: [
        ["--config"], ["--config", "FILE", "/c"], ["--config", "FILE", "--bwlimt=1M"],
        ["--config", "FILE", "--config", "FILE"],
    ])
    func `wrong arguments beside a file are wrong usage`(words: [String]) throws {
        try write("source = vg0/web", "target = /new")
        let arguments = words.map { $0.replacing("FILE", with: file) }
        let result = try RunningProgram([program, "refresh"] + arguments).wait()
        #expect(result.status == 64 && result.errors.hasPrefix("blkferry: usage: "), "\(result)")
    }
}
