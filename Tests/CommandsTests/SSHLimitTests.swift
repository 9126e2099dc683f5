// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// A real sshd that takes few connections at once, or talks before it lets anybody in.
@Suite(.blocking, .timeLimit(.minutes(60))) struct SSHLimitTests {
    private let scratch: ScratchDirectory
    private let source: String
    private let target: String
    private let size = 16 << 20

    init() throws {
        scratch = try ScratchDirectory()
        source = try scratch.filledFile("source", size: size, seed: 7)
        target = scratch.file("target")
    }

    private func ferry(_ server: SSHServer, _ arguments: String...) throws -> ProgramResult {
        try RunningProgram([program] + arguments + server.options).wait()
    }

    /// With 1:100:1 sshd drops each connection that comes while another one is not let in yet.
    @Test(arguments: ["MaxStartups 1:100:1", "MaxStartups 2:80:3", "MaxSessions 1"])
    func `a run continues without the connections that sshd drops`(settings: String) throws {
        let server = try SSHServer(settings: settings)
        for (from, to) in [(source, server.url(target)), (server.url(target), source + ".back")] {
            let result = try ferry(server, "--verify", "-c", "8", "--bwlimit", "16M", from, to)
            #expect(result.status == 0, "\(result)")
            // Or sshd may drop the next run's first connection.
            #expect(try server.becomesIdle())
        }
        #expect(try areEqual(source, target))
        #expect(try areEqual(source, source + ".back"))
        #expect(SSHPart.waitForNone(with: scratch.path).isEmpty)
    }

    @Test(arguments: [16, 20, 24, 28])
    func `a run continues without the connections that there are no descriptors for`(
        count: Int
    ) throws {
        let server = try SSHServer()
        let limited = ["timeout", "300", "bash", "-c", "ulimit -n \(count) && exec \"$0\" \"$@\""]
        let words = [program, "-q", "-c", "8", source, server.url(target)]
        let result = try RunningProgram(limited + words + server.options).wait()
        #expect(result.status == 0, "\(result)")
        #expect(try areEqual(source, target))
    }

    @Test func `a first connection that sshd drops ends with 4, and nothing is created`() throws {
        let server = try SSHServer(settings: "MaxStartups 1:100:1")
        let stranger = try StreamSocket(port: server.port)
        let refused = try ferry(server, source, server.url(target))
        #expect(refused.status == 4 && refused.errors.contains("ssh: "), "\(refused)")
        #expect(try server.log().contains("drop connection"))
        #expect(!FileManager.default.fileExists(atPath: target))
        stranger.interrupt()
        // sshd notices a moment later that the stranger has gone.
        let deadline = ContinuousClock.now + .seconds(60)
        while try ferry(server, source, server.url(target)).status != 0 {
            try #require(ContinuousClock.now < deadline)
        }
        #expect(try areEqual(source, target))
    }

    @Test func `a banner is no answer, and no reason of a failure`() throws {
        let banner = scratch.file("banner")
        try "Authorized use only.\nblkferry: not really\nHTTP/1.1 200 OK\n\n".write(
            toFile: banner, atomically: true, encoding: .utf8)
        let server = try SSHServer(settings: "Banner \(banner)")
        let result = try ferry(server, "--verify", "-c", "4", source, server.url(target))
        #expect(result.status == 0, "\(result)")
        #expect(!result.output.contains("Authorized"), "\(result)")
        #expect(try areEqual(source, target))
        let missing = try RunningProgram(
            [program, "list", server.url(), "--ssh-command", try server.command()]
                + ["--remote-command", "/nowhere/blkferry"]
        ).wait()
        #expect(missing.status == 4, "\(missing)")
        let line = missing.errors.split(separator: "\n").first { $0.hasPrefix("blkferry: ssh://") }
        #expect(line?.contains("/nowhere/blkferry") == true, "\(missing)")
    }
}
