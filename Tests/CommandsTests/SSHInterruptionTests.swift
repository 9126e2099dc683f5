// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// `ssh://` runs whose client, ssh or server dies on the way.
@Suite(.blocking, .timeLimit(.minutes(30))) struct SSHInterruptionTests {
    private let scratch: ScratchDirectory
    private let server: SSHServer
    private let source: String
    private let there: String
    private let size = 24 << 20

    init() throws {
        scratch = try ScratchDirectory()
        server = try SSHServer()
        source = try scratch.sparseFile("source", size: size)
        try fill(source, seed: 1, size: size)
        there = scratch.file("there")
    }

    /// Starts a run that takes about six seconds, and waits until its target has some of the data
    /// and two ssh processes take part.
    private func start(_ from: String, _ to: String, target: String) throws -> RunningProgram {
        let sync = try RunningProgram(
            [program, "-v", "--json", "-c", "2", "--bwlimit", "4M"] + server.options + [from, to])
        let wanted = try [UInt8](contentsOf: source, count: 4096)
        while sync.isRunning {
            let isWritten = (try? [UInt8](contentsOf: target, count: 4096)) == wanted
            if isWritten, try server.sessionCount() > 1 { break }
            usleep(5_000)
        }
        return sync
    }

    private func startPush() throws -> RunningProgram {
        try start(source, server.url(there), target: there)
    }

    private func json(_ result: ProgramResult) throws -> Record {
        let object = try JSONSerialization.jsonObject(with: Data(result.output.utf8))
        return Record(try #require(object as? [String: Any]))
    }

    @Test func `a client that is killed leaves nothing behind, and the target is free at once`()
        throws
    {
        let sync = try startPush()
        #expect(SSHPart.all(with: there).contains { $0.isServer })
        sync.signal(SIGKILL)
        _ = try sync.wait()
        let left = SSHPart.waitForNone(with: scratch.path)
        #expect(left.isEmpty, "\(left)")
        let again = try RunningProgram(
            [program, "--verify"] + server.options + [source, server.url(there)]
        ).wait()
        #expect(again.status == 0, "\(again)")
        #expect(try areEqual(source, there))
    }

    @Test func `a server with stopped neighbours ends when its client is killed`() throws {
        let sync = try startPush()
        let soon = ContinuousClock.now + .seconds(30)
        while SSHPart.all(with: there).filter(\.isServer).count < 2, ContinuousClock.now < soon {
            usleep(5_000)
        }
        let parts = SSHPart.all(with: there).filter(\.isServer)
        // One of them is the server, the others wait for its end; which is which does not show.
        #expect(parts.count > 1, "\(parts)")
        let newest = try #require(parts.max { $0.process < $1.process })
        kill(newest.process, SIGSTOP)
        defer { kill(newest.process, SIGCONT) }
        sync.signal(SIGKILL)
        _ = try sync.wait()
        let deadline = ContinuousClock.now + .seconds(60)
        var left = SSHPart.all(with: scratch.path).filter(\.isServer)
        while left.contains(where: { $0.process != newest.process }),
            ContinuousClock.now < deadline
        {
            usleep(50_000)
            left = SSHPart.all(with: scratch.path).filter(\.isServer)
        }
        #expect(left.allSatisfy { $0.process == newest.process }, "\(left)")
        kill(newest.process, SIGCONT)
        #expect(SSHPart.waitForNone(with: scratch.path).isEmpty)
    }

    @Test(arguments: [SIGINT, SIGHUP, SIGTERM], [true, false])
    func `a signal to the whole process group ends the run in order`(
        signal: Int32, isPush: Bool
    ) throws {
        try must("cp", source, scratch.file("other"))
        let target = isPush ? there : scratch.file("back")
        let sync =
            isPush
            ? try startPush()
            : try start(server.url(scratch.file("other")), target, target: target)
        let group = getpgid(sync.processID)
        #expect(group == sync.processID, "a group of its own")
        let parts = SSHPart.all(with: scratch.path).filter { getpgid($0.process) == group }
        #expect(parts.count { $0.isSSH } > 1, "ssh gets the signal as well: \(parts)")
        kill(-group, signal)
        let result = try sync.wait()
        #expect(result.status == 130, "\(result)")
        let record = try json(result)
        #expect(record.bool("interrupted") == true && record.bool("flushed") == true, "\(result)")
        #expect(try #require(record.int("compared")) < size)
        // A connection that was killed would be made again, with another server.
        let sessions = result.errors.components(separatedBy: "session begins").count - 1
        #expect(sessions == 1, "\(result)")
        let left = SSHPart.waitForNone(with: scratch.path)
        #expect(left.isEmpty, "\(left)")
    }

    @Test func `an ssh process that is killed is replaced`() throws {
        let sync = try startPush()
        let ssh = try #require(SSHPart.all(with: there).first { $0.isSSH })
        kill(ssh.process, SIGKILL)
        let before = try server.sessionCount()
        let result = try sync.wait()
        #expect(result.status == 0, "\(result)")
        #expect(try areEqual(source, there))
        #expect(try server.sessionCount() > before)
        #expect(SSHPart.waitForNone(with: scratch.path).isEmpty)
    }

    @Test(arguments: [SIGKILL, SIGTERM])
    func `a server that dies with all its connections is started again`(signal: Int32) throws {
        let sync = try startPush()
        for part in SSHPart.all(with: there) where part.isServer { kill(part.process, signal) }
        let result = try sync.wait()
        #expect(result.status == 0, "\(result)")
        #expect(try json(result).bool("flushed") == true)
        #expect(try areEqual(source, there))
        #expect(SSHPart.waitForNone(with: scratch.path).isEmpty)
    }

    @Test func `nor does the death of the server end a pull`() throws {
        try must("cp", source, there)
        let target = scratch.file("back")
        let sync = try start(server.url(there), target, target: target)
        for part in SSHPart.all(with: there) where part.isServer { kill(part.process, SIGKILL) }
        let result = try sync.wait()
        #expect(result.status == 0, "\(result)")
        #expect(try areEqual(source, target))
    }
}
