// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// Each failure of `ssh://` is one clear line, at once.
@Suite(.blocking, .timeLimit(.minutes(60))) struct SSHErrorTests {
    private let scratch: ScratchDirectory
    private let server: SSHServer
    private let source: String

    init() throws {
        scratch = try ScratchDirectory()
        server = try SSHServer()
        source = try scratch.sparseFile("source", size: 1 << 20)
    }

    /// Runs a push that fails before it begins.
    private func failure(
        ssh: String? = nil, remote: String = program, url: String? = nil
    ) throws -> ProgramResult {
        let there = scratch.file("there")
        let start = ContinuousClock.now
        let result = try RunningProgram([
            program, "--ssh-command", try ssh ?? server.command(), "--remote-command", remote,
            source, url ?? server.url(there),
        ]).wait()
        #expect(ContinuousClock.now - start < .seconds(30), "it is not tried for half a minute")
        #expect(!FileManager.default.fileExists(atPath: there))
        let lines = result.errors.split(separator: "\n")
        #expect(
            lines.count <= 2 && lines.dropFirst().allSatisfy { $0.hasPrefix("  ") }, "\(result)")
        #expect(SSHPart.waitForNone(with: scratch.path).isEmpty)
        return result
    }

    @Test func `the exit status of ssh is known also if the caller ignores SIGCHLD`() throws {
        let ssh = scratch.file("connect")
        try "exit 7\n".write(toFile: ssh, atomically: false, encoding: .utf8)
        let result = try run(
            "sh", "-c", "trap '' CHLD; exec \"$0\" \"$@\"", program, "--ssh-command", "sh \(ssh)",
            source, "ssh://host/dev/a")
        #expect(result.status == 4, "\(result)")
        #expect(result.errors.contains("ended with status 7 before it spoke"), "\(result)")
    }

    @Test func `a key that the host refuses ends with 5`() throws {
        let result = try failure(ssh: server.command(key: "stranger"))
        #expect(result.status == 5, "\(result)")
        #expect(result.errors.contains("Permission denied"), "\(result)")
    }

    @Test func `a host whose key ssh does not know, or not any more, ends with 5`() throws {
        let unknown = try failure(ssh: server.command(hosts: "nobody"))
        #expect(unknown.status == 5, "\(unknown)")
        #expect(unknown.errors.contains("ssh does not know the host's key"), "\(unknown)")
        let other = try String(contentsOfFile: server.scratch.file("stranger.pub"), encoding: .utf8)
        try "[127.0.0.1]:\(server.port) \(other)".write(
            toFile: server.scratch.file("others"), atomically: false, encoding: .utf8)
        let changed = try failure(ssh: server.command(hosts: "others"))
        #expect(changed.status == 5, "\(changed)")
        #expect(changed.errors.contains("is not the one that ssh knows"), "\(changed)")
    }

    @Test func `an unreachable host ends with 4 and ssh's message`() throws {
        let port = try { try Loopback.port(of: Loopback.listen()) }()
        let result = try failure(url: "ssh://127.0.0.1:\(port)/dev/none")
        #expect(result.status == 4, "\(result)")
        #expect(result.errors.contains("Connection refused"), "\(result)")
    }

    @Test func `a missing ssh ends with 4`() throws {
        let result = try failure(ssh: "no-ssh-here -F x")
        #expect(result.status == 4, "\(result)")
        #expect(result.errors.contains("no-ssh-here is not found on this machine"), "\(result)")
    }

    @Test func `a missing blkferry on the host ends with 4`() throws {
        let result = try failure(remote: "/nowhere/blkferry")
        #expect(result.status == 4, "\(result)")
        #expect(result.errors.contains("/nowhere/blkferry is not found there"), "\(result)")
        #expect(result.errors.contains("--remote-command"), "\(result)")
        let noProgram = try failure(remote: source)
        #expect(noProgram.status == 4, "\(noProgram)")
        #expect(noProgram.errors.contains("cannot be run there"), "\(noProgram)")
    }

    @Test(
        arguments: [
            ("echo \"blkferry: usage: Unknown option '--stdio'\" >&2; exit 64", "is too old"),
            ("printf 'blkferry stdio 2 7.1.0\\n'; exec sleep 5", "version 7.1.0"),
            ("echo Welcome to this host; exec \(program) \"$@\"", "\"Welcome to this host\""),
            ("echo Welcome to this host; exec sleep 20", "\"Welcome to this host\""),
            ("exec yes", "\"y\""), ("echo 'no tty present' >&2; exit 1", "no tty present"),
            ("exit 3", "status 3"), ("kill -9 $$", "without a message"),
        ])
    func `another program or version on the host ends with 4`(
        script: String, words: String
    ) throws {
        let result = try failure(remote: server.script(script))
        #expect(result.status == 4, "\(result)")
        #expect(result.errors.contains(words), "\(result)")
    }

    @Test func `an impossible URL or option is wrong usage`() throws {
        for arguments in [
            ["ssh://-oProxyCommand=x/dev/a"], ["ssh://a:b@host/dev/a"], ["ssh://-l@host/dev/a"],
            ["ssh://host/SERIAL=1"], ["ssh://host"], ["ssh://host:0/dev/a"],
            ["--ssh-command", "ssh 'x", "ssh://host/dev/a"],
            ["--ssh-command", "ssh; true", "ssh://host/dev/a"],
            ["--remote-command", "", "ssh://host/dev/a"],
            ["--remote-command", "-v", "ssh://host/dev/a"],
        ] {
            let result = try RunningProgram([program, source] + arguments).wait()
            #expect(result.status == 64, "\(arguments): \(result)")
        }
    }

    @Test func `--stdio is refused with another way in, and on a terminal`() throws {
        for arguments in [
            ["--listen", "127.0.0.1:0"], ["--insecure"], ["--one-time-token"],
            ["--token-file", source], ["--group", "a/b"], ["--group", ""],
            ["--group", String(repeating: "a", count: 65)],
        ] {
            let result = try RunningProgram(
                [program, "serve", "--stdio", "--export", source] + arguments
            ).wait()
            #expect(result.status == 64, "\(arguments): \(result)")
        }
        let alone = try blkferry("serve", "--group", "a", "--export", source)
        #expect(alone.status == 64)
        let terminal = try run(
            "python3", "-c",
            "import pty, sys, os; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))",
            program, "serve", "--stdio", "--export", source)
        #expect(terminal.status == 64, "\(terminal)")
        #expect(terminal.output.contains("is a terminal"), "\(terminal)")
    }
}
