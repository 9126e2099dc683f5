// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// `ssh://` by a real ssh and sshd: what works.
@Suite(.blocking, .timeLimit(.minutes(60))) struct SSHTests {
    private let scratch: ScratchDirectory
    private let server: SSHServer
    private let source: String
    private let size = (24 << 20) + 1

    init() throws {
        scratch = try ScratchDirectory()
        server = try SSHServer()
        source = try scratch.filledFile("source", size: size, seed: 1)
    }

    private func ferry(_ arguments: String...) throws -> ProgramResult {
        try RunningProgram([program] + arguments + server.options).wait()
    }

    private func json(_ result: ProgramResult) throws -> Record {
        let object = try JSONSerialization.jsonObject(with: Data(result.output.utf8))
        return Record(try #require(object as? [String: Any]))
    }

    /// The limits give all processes the time to join.
    @Test func `an image is created on the host, comes back, and several ssh processes take part`()
        throws
    {
        let there = scratch.file("there's a \"new\" $HOME image")
        let url = server.url(there.replacing(" ", with: "%20"))
        let push = try ferry("--verify", "--json", "-c", "4", "--bwlimit", "4M", source, url)
        #expect(push.status == 0, "\(push)")
        #expect(try json(push).bool("created") == true)
        #expect(try json(push).bool("verified") == true)
        #expect(try areEqual(source, there))
        let afterPush = try server.sessionCount()
        #expect((2...5).contains(afterPush), "\(afterPush)")
        #expect(SSHPart.waitForNone(with: scratch.path).isEmpty)

        let back = scratch.file("back")
        let pull = try ferry("--verify", "-c", "4", "--bwlimit", "4M", url, back)
        #expect(pull.status == 0, "\(pull)")
        #expect(try areEqual(source, back))
        #expect(try server.sessionCount() > afterPush + 1)

        try overwrite(there, [1, 2, 3], at: 1_000_000)
        #expect(try ferry("verify", source, url).status == 1)
        let second = try ferry("--json", source, url)
        #expect(second.status == 0, "\(second)")
        #expect(try json(second).int("written") == 4096)
        #expect(try ferry("verify", url, back).status == 0)
        #expect(SSHPart.waitForNone(with: scratch.path).isEmpty)
    }

    @Test func `the user's ciphers are used, those with processor instructions first`() throws {
        let hasInstructions = try String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8)
            .contains(" aes ")
        // A program called ssh that takes down how it is called.
        let (wrapper, calls) = (scratch.file("ssh"), scratch.file("calls"))
        try """
        #!/bin/sh
        echo "$@" >> \(calls)
        exec ssh "$@"
        """.write(toFile: wrapper, atomically: false, encoding: .utf8)
        try must("chmod", "755", wrapper)
        let usual = server.options[1]
        func list(_ options: String) throws -> [String] {
            try must("sh", "-c", ": > \(calls)")
            var arguments = server.options
            arguments[1] = usual.replacing(
                "ssh ", with: "\(wrapper) \(options)", maxReplacements: 1)
            let result = try RunningProgram(
                [program, "list", server.url("/")] + arguments
            ).wait()
            #expect(result.status == 0, "\(result)")
            return try String(contentsOfFile: calls, encoding: .utf8)
                .split(separator: "\n").map(String.init)
        }
        let calls1 = try list("")
        #expect(calls1.first?.contains(" -G ") == hasInstructions, "\(calls1)")
        #expect(calls1.last?.contains(" -oCiphers=aes128-gcm@openssh.com,") == hasInstructions)
        let calls2 = try list("-c aes256-ctr ")
        #expect(calls2.last?.contains("-oCiphers") == false, "\(calls2)")
    }

    @Test(arguments: [[], ["--whole-file"], ["--bwlimit", "16M"], ["-c", "1"], ["-m", "sha256"]])
    func `the options of a run work as they do over HTTP`(flags: [String]) throws {
        let there = scratch.file("there")
        let arguments = [program] + server.options + flags
        let dry = try RunningProgram(arguments + ["-n", source, server.url(there)]).wait()
        #expect(dry.status == 0, "\(dry)")
        #expect(!FileManager.default.fileExists(atPath: there))
        let push = try RunningProgram(arguments + [source, server.url(there)]).wait()
        #expect(push.status == 0, "\(push)")
        #expect(try areEqual(source, there))
        let back = scratch.file("back")
        let pull = try RunningProgram(arguments + [server.url(there), back]).wait()
        #expect(pull.status == 0, "\(pull)")
        #expect(try areEqual(source, back))
    }

    @Test func `list shows one device, and a missing device has status 3`() throws {
        let one = try ferry("list", server.url(source))
        #expect(one.status == 0, "\(one)")
        #expect(one.output.contains(source) && one.output.contains(" ro"))
        #expect(try ferry("list", server.url(scratch.file("none"))).status == 3)
        let missing = try ferry(server.url(scratch.file("none")), scratch.file("back"))
        #expect(missing.status == 3, "\(missing)")
        let nowhere = try ferry(source, server.url(scratch.file("none/image")))
        #expect(nowhere.status == 3, "\(nowhere)")
        #expect(nowhere.errors.contains("parent directory"), "\(nowhere)")
    }

    @Test func `a source is exported for reading, and a push to it is refused`() throws {
        let record = scratch.file("record")
        let recording = try server.script("echo \"$@\" >>\(record); exec \(program) \"$@\"")
        let ssh = try server.command()
        func arguments(_ command: String, _ more: String...) -> [String] {
            [program, "--ssh-command", ssh, "--remote-command", command] + more
        }
        let there = scratch.file("there")
        let push = try RunningProgram(arguments(recording, source, server.url(there))).wait()
        #expect(push.status == 0, "\(push)")
        // A connection that came too late for the run may still start the command.
        #expect(try server.becomesIdle())
        #expect(SSHPart.waitForNone(with: scratch.path).isEmpty)
        var lines = try String(contentsOfFile: record, encoding: .utf8).split(separator: "\n")
        #expect(!lines.isEmpty && lines.allSatisfy { $0.hasSuffix(" --export \(there):rw") })
        #expect(Set(lines).count == 1, "all of a run are one group")
        try must("rm", record)
        let pull = try RunningProgram(
            arguments(recording, server.url(there), scratch.file("back"))
        ).wait()
        #expect(pull.status == 0, "\(pull)")
        lines = try String(contentsOfFile: record, encoding: .utf8).split(separator: "\n")
        #expect(!lines.isEmpty && lines.allSatisfy { $0.hasSuffix(" --export \(there):ro") })

        // What a client would get that wants to write to what it said that it reads.
        let reading = try server.script(
            "exec \(program) \"$1\" \"$2\" \"$3\" \"$4\" \"$5\" \"${6%rw}ro\"")
        try overwrite(there, [1], at: 5000)
        let before = try [UInt8](contentsOf: there)
        let refused = try RunningProgram(arguments(reading, source, server.url(there))).wait()
        #expect(refused.status == 2, "\(refused)")
        #expect(refused.errors.contains("read-only"), "\(refused)")
        #expect(try [UInt8](contentsOf: there) == before)
    }

    @Test func `a target that is the source under another name is refused`() throws {
        let same = try ferry(source, server.url(source))
        #expect(same.status == 2, "\(same)")
        #expect(same.errors.contains("is the source"), "\(same)")
    }

    @Test func `the remote command may have a prefix`() throws {
        let there = scratch.file("there")
        let result = try RunningProgram([
            program, "--ssh-command", try server.command(), "--remote-command",
            "A='1 2' env B=2 \(program)", source, server.url(there),
        ]).wait()
        #expect(result.status == 0, "\(result)")
        #expect(try areEqual(source, there))
    }

    @Test func `-v shows what the remote program says`() throws {
        let result = try ferry("-v", source, server.url(scratch.file("there")))
        #expect(result.status == 0, "\(result)")
        #expect(result.errors.contains("blkferry: 127.0.0.1: "), "\(result)")
        #expect(result.errors.contains("session begins"), "\(result)")
    }
}

/// Block devices, and the safety gate over there.
@Suite(.enabled(if: isRoot, "loop devices need root"), .blocking, .timeLimit(.minutes(60)))
struct SSHDeviceTests {
    private let size = 16 << 20
    private let server: SSHServer
    private let source: LoopDevice

    init() throws {
        server = try SSHServer()
        source = try LoopDevice(size: size)
        try must("mkfs.ext4", "-q", "-L", "one", source.path)
        try fill(source.path, seed: 1, size: 2 << 20, offset: 12 << 20)
    }

    private func ferry(_ arguments: String...) throws -> ProgramResult {
        try RunningProgram([program] + arguments + server.options).wait()
    }

    @Test func `a device is copied to a device on the host and back`() throws {
        let there = try LoopDevice(size: size)
        let back = try LoopDevice(size: size)
        let push = try ferry(
            "--verify", "-c", "4", "--bwlimit", "512K", source.path, server.url(there.path))
        #expect(push.status == 0, "\(push)")
        #expect(try areEqual(source.path, there.path))
        #expect(try server.sessionCount() > 1)
        let pull = try ferry("--verify", "-c", "4", server.url(there.path), back.path)
        #expect(pull.status == 0, "\(pull)")
        #expect(try areEqual(source.path, back.path))
        #expect(try ferry("verify", server.url(there.path), back.path).status == 0)
    }

    @Test func `the gate's refusals come from the host in full and end with 2`() throws {
        let foreign = try LoopDevice(size: size)
        try must("mkfs.ext4", "-q", "-L", "precious", foreign.path)
        // For reading, or it would write by itself.
        let mount = try LoopMount(size: size, options: "ro")
        for (target, words) in [
            (foreign, ["ext4", "\"precious\"", "--overwrite"]),
            (mount.loop, ["mounted on \(mount.path)"]),
        ] {
            let before = try must("sha256sum", target.path)
            let url = server.url(target.path)
            let result = try ferry(source.path, url)
            #expect(result.status == 2, "\(result)")
            #expect(result.errors.hasPrefix("blkferry: \(url): refused: "), "\(result)")
            for word in words { #expect(result.errors.contains(word), "\(result)") }
            #expect(try must("sha256sum", target.path) == before)
        }
    }

    @Test func `list without a device shows all devices of the host, for reading`() throws {
        let result = try ferry("list", server.url())
        #expect(result.status == 0, "\(result)")
        let line = result.output.split(separator: "\n").first { $0.contains(" \(source.path) ") }
        #expect(line?.contains(" ro ") == true, "\(result)")
        #expect(!result.output.contains(" rw "))
    }
}
