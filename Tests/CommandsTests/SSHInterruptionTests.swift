// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// `ssh://` runs whose client, ssh or server dies on the way.
@Suite(.blocking, .timeLimit(.minutes(60))) struct SSHInterruptionTests {
    private let scratch: ScratchDirectory
    private let server: SSHServer
    private let source: String
    private let there: String
    private let size = 24 << 20

    init() throws {
        scratch = try ScratchDirectory()
        server = try SSHServer()
        source = try scratch.filledFile("source", size: size, seed: 1)
        there = scratch.file("there")
    }

    /// Starts a run that takes about twelve seconds, and waits until its target has some of the data
    /// and two ssh processes take part.
    ///
    /// - Parameters:
    ///   - remote: what ssh runs on the host.
    ///   - rate: more for a run that is interrupted, whose requests have 5 s to end.
    private func start(
        _ from: String, _ to: String, target: String, remote: String = program,
        rate: String = "2M"
    ) throws -> RunningProgram {
        var arguments = [program, "-v", "--json", "-c", "2", "--bwlimit", rate]
        arguments += server.options.dropLast()
        arguments += [remote, from, to]
        let sync = try RunningProgram(arguments)
        let wanted = try [UInt8](contentsOf: source, count: 4096)
        while sync.isRunning {
            let isWritten = (try? [UInt8](contentsOf: target, count: 4096)) == wanted
            if isWritten, try server.sessionCount() > 1 { break }
            usleep(5_000)
        }
        return sync
    }

    private func startPush(rate: String = "2M") throws -> RunningProgram {
        try start(source, server.url(there), target: there, rate: rate)
    }

    private func json(_ result: ProgramResult) throws -> Record {
        let object = try JSONSerialization.jsonObject(with: Data(result.output.utf8))
        return Record(try #require(object as? [String: Any]))
    }

    @Test func `a killed client leaves nothing behind, and the target is free at once`() throws {
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
        var joined = SSHPart.all(with: there).filter(\.hasJoinedServer)
        while joined.isEmpty, ContinuousClock.now < soon {
            usleep(5_000)
            joined = SSHPart.all(with: there).filter(\.hasJoinedServer)
        }
        let stopped = try #require(joined.first)
        kill(stopped.process, SIGSTOP)
        defer { kill(stopped.process, SIGCONT) }
        sync.signal(SIGKILL)
        _ = try sync.wait()
        let deadline = ContinuousClock.now + .seconds(60)
        var left = SSHPart.all(with: scratch.path).filter(\.isServer)
        while left.contains(where: { $0.process != stopped.process }),
            ContinuousClock.now < deadline
        {
            usleep(50_000)
            left = SSHPart.all(with: scratch.path).filter(\.isServer)
        }
        #expect(left.allSatisfy { $0.process == stopped.process }, "\(left)")
        kill(stopped.process, SIGCONT)
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
            ? try startPush(rate: "4M")
            : try start(server.url(scratch.file("other")), target, target: target, rate: "4M")
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
        let before = try server.sessionCount()
        kill(ssh.process, SIGKILL)
        let result = try sync.wait()
        #expect(result.status == 0, "\(result)")
        #expect(try areEqual(source, there))
        #expect(try server.sessionCount() > before)
        #expect(SSHPart.waitForNone(with: scratch.path).isEmpty)
    }

    @Test(arguments: [SIGKILL, SIGTERM])
    func `the death of the server with all its connections does not end a push`(signal: Int32)
        throws
    {
        let sync = try startPush()
        for part in SSHPart.all(with: there) where part.isServer { kill(part.process, signal) }
        let result = try sync.wait()
        #expect(result.status == 0, "\(result)")
        #expect(try json(result).bool("flushed") == true)
        #expect(try areEqual(source, there))
        #expect(SSHPart.waitForNone(with: scratch.path).isEmpty)
    }

    enum Change: CaseIterable {
        case nothing, oneByte, fileSystem
    }

    /// The server of each run is a process of its own, whose log is in a file here.
    @Test(arguments: Change.allCases)
    func `a client that wakes up after its session leaves a changed target alone`(change: Change)
        throws
    {
        let log = scratch.file("log")
        let remote = try server.script("exec \(program) \"$@\" --session-timeout 1 2>>\(log)")
        func silentEnds() throws -> Int {
            try String(contentsOfFile: log, encoding: .utf8)
                .components(separatedBy: "end=silent").count - 1
        }
        let sync = try start(source, server.url(there), target: there, remote: remote)
        let before = try silentEnds()
        sync.signal(SIGSTOP)
        let deadline = ContinuousClock.now + .seconds(60)
        while try silentEnds() == before {
            try #require(ContinuousClock.now < deadline)
            usleep(20_000)
        }
        switch change {
        case .nothing: break
        case .oneByte: try overwrite(there, [UInt8](contentsOf: source, count: 1), at: 0)
        case .fileSystem: try must("mkfs.ext4", "-q", "-F", "-L", "precious", there)
        }
        let after = try [UInt8](contentsOf: there)
        sync.signal(SIGCONT)
        let result = try sync.wait()
        if change == .nothing {
            #expect(result.status == 0, "\(result)")
            #expect(try areEqual(source, there))
        } else {
            #expect(result.status == 4, "\(result)")
            #expect(result.errors.contains("nothing more was written"), "\(result)")
            #expect(try [UInt8](contentsOf: there) == after)
        }
        #expect(SSHPart.waitForNone(with: scratch.path).isEmpty)
    }

    @Test func `the death of the server does not end a pull`() throws {
        try must("cp", source, there)
        let target = scratch.file("back")
        let sync = try start(server.url(there), target, target: target)
        for part in SSHPart.all(with: there) where part.isServer { kill(part.process, SIGKILL) }
        let result = try sync.wait()
        #expect(result.status == 0, "\(result)")
        #expect(try areEqual(source, target))
    }
}
