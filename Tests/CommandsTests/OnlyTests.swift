// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// `serve --stdio --only` as the forced command of a key, by a real sshd.
@Suite(.blocking, .timeLimit(.minutes(60))) struct OnlyTests {
    private let scratch: ScratchDirectory
    private let server: SSHServer
    private let source: String
    private let target: String
    private let other: String
    private let size = 8 << 20

    init() throws {
        scratch = try ScratchDirectory()
        server = try SSHServer()
        source = try scratch.filledFile("source", size: size, seed: 1)
        target = scratch.file("target")
        other = try scratch.filledFile("other", size: size, seed: 2)
    }

    /// Restricts the key, as docs/serving.md says.
    private func restrict(_ exports: String...) throws {
        let path = server.scratch.file("user.pub")
        let key = try String(contentsOfFile: path, encoding: .utf8)
        let bare = key[(key.range(of: "ssh-ed25519")?.lowerBound ?? key.startIndex)...]
        let only = exports.map { "--only \($0)" }.joined(separator: " ")
        try "command=\"\(program) serve --stdio \(only)\",restrict \(bare)".write(
            toFile: path, atomically: false, encoding: .utf8)
    }

    private func ferry(_ arguments: String...) throws -> ProgramResult {
        try RunningProgram([program] + arguments + server.options).wait()
    }

    @Test func `a key pushes to its export on several connections, and reaches nothing else`()
        throws
    {
        try restrict("\(target):rw")
        let push = try ferry("--verify", "-c", "4", "--bwlimit", "1M", source, server.url(target))
        #expect(push.status == 0, "\(push)")
        #expect(try areEqual(source, target))
        #expect(try server.sessionCount() > 1)
        let back = scratch.file("back")
        #expect(try ferry(server.url(target), back).status == 0)
        #expect(try areEqual(source, back))

        let before = try Data(contentsOf: URL(fileURLWithPath: other))
        #expect(try ferry("--overwrite", source, server.url(other)).status == 3)
        #expect(try ferry(server.url(other), scratch.file("stolen")).status == 3)
        #expect(try ferry(server.url("/dev/vda"), scratch.file("stolen")).status == 3)
        #expect(try Data(contentsOf: URL(fileURLWithPath: other)) == before)
        #expect(!FileManager.default.fileExists(atPath: scratch.file("stolen")))
        let list = try ferry("list", server.url())
        #expect(list.status == 0 && list.output.contains(target), "\(list)")
        #expect(!list.output.contains("/dev/") && !list.output.contains(other), "\(list)")
        #expect(SSHPart.waitForNone(with: scratch.path).isEmpty)
    }

    @Test func `a key for a read-only export cannot write, whatever it requests`() throws {
        try restrict(other)
        let refused = try ferry("--overwrite", source, server.url(other))
        #expect(refused.status == 2 && refused.errors.contains("read-only"), "\(refused)")
        #expect(try ferry(server.url(other), scratch.file("back")).status == 0)
        // Nor does another command help: there is none.
        let shell = try server.command()
        let result = try run(
            "sh", "-c",
            "\(shell) -p \(server.port) \(NSUserName())@127.0.0.1 cat /etc/passwd </dev/null")
        #expect(!result.output.contains("root:"))
        #expect(result.output.hasPrefix("blkferry stdio 1 "))
    }

    @Test(arguments: [
        ["serve", "--only", "/dev/loop0"], ["serve", "--stdio", "--only", "nonsense/a/b"],
        ["serve", "--stdio", "--only", "/dev/loop0", "--export", "/dev/loop1"],
        ["serve", "--stdio", "--only", "/dev/loop0", "--export-all"],
        ["serve", "--stdio", "--only"],
    ])
    func `options that do not go with --only are wrong usage`(arguments: [String]) throws {
        #expect(try RunningProgram([program] + arguments).wait().status == 64)
    }
}
