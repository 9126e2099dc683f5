// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockServer
import Foundation
import Glibc
import LinuxIO
import SystemPackage
import TestSupport
import Testing
import WireProtocol

/// A client whose session has ended by silence asks for another one, to go on with its run.
@Suite(.blocking, .timeLimit(.minutes(60))) struct HTTPContinuedSessionTests {
    static let size = 1 << 20
    let scratch: ScratchDirectory

    init() throws { scratch = try ScratchDirectory() }

    /// A server on which a run has written 8 KiB of `9` at 64 KiB, and has then been silent.
    struct Run {
        let server: TestServer
        let path: String
        let record: SessionRecord

        /// - Parameter during: what is done before the session ends.
        init(
            _ path: String, on server: TestServer, during: () throws -> Void = {}
        ) throws {
            self.server = server
            self.path = path
            record = try server.session(path, .write, size: size, run: "mine")
            let data = [UInt8](repeating: 9, count: 8192)
            #expect(try server.write(record.session, data, at: 65536).status == 204)
            try during()
            try waitForEnd()
        }

        func waitForEnd() throws {
            try #require(becomesTrue { server.endSilentSessions() })
        }

        /// Asks for the session that the run goes on with.
        func goOn(
            on other: TestServer? = nil, run: String = "mine", overwrite: Bool? = nil
        ) throws -> HTTPAnswer {
            var request = Wire.sessionRequest(.write, size: size, run: run)
            request.continues = .init(host: record.host)
            request.overwrite = overwrite
            return try (other ?? server).ask(
                "POST", Route.sessions(device: path).path, [Wire.json],
                body: WireJSON.encode(request))
        }

        func expectRefusal(_ answer: HTTPAnswer, sourceLocation: SourceLocation = #_sourceLocation)
            throws
        {
            #expect(answer.status == 409, "\(answer.text)", sourceLocation: sourceLocation)
            let problem = try answer.decoded(as: Problem.self)
            #expect(problem.cause == "changed", "\(problem)", sourceLocation: sourceLocation)
        }

        private let size = HTTPContinuedSessionTests.size
    }

    func makeServer(remembering directory: String? = nil) throws -> TestServer {
        try TestServer("\(scratch.path)/:rw") { $0.runtimeDirectory = directory }
    }

    func start(_ name: String = "image") throws -> Run {
        try Run(try scratch.sparseFile(name, size: Self.size), on: try makeServer())
    }

    /// Writes what is there already, so that nothing but the change counter shows it.
    func touch(_ path: String) throws {
        let byte = try [UInt8](contentsOf: path, count: 1)
        let file = try FileHandle(forUpdating: URL(fileURLWithPath: path))
        try file.write(contentsOf: Data(byte))
        try file.synchronize()
        try file.close()
    }

    /// Writes with another program, since this process is the server's.
    func writeFromOutside(_ path: String) throws {
        try must(
            "dd", "if=/dev/zero", "of=\(path)", "bs=4096", "count=1", "conv=notrunc,fsync",
            "status=none")
    }

    @Test(arguments: [true, false])
    func `a write by another program during the session ends the run`(isStopped: Bool) throws {
        let path = try scratch.sparseFile("image", size: Self.size)
        let directory = scratch.file("run")
        let server = try makeServer(remembering: directory)
        let run = try Run(path, on: server) {
            try writeFromOutside(path)
            if isStopped { server.server.stop() }
        }
        let before = try [UInt8](contentsOf: path)
        let answer = try run.goOn(on: try makeServer(remembering: directory), overwrite: true)
        try run.expectRefusal(answer)
        #expect(answer.text.contains("another program wrote to it before the session ended"))
        #expect(try [UInt8](contentsOf: path) == before)
    }

    @Test(.enabled(if: isRoot), arguments: ["device", "file"])
    func `a write to a loop device or its file during the session ends the run`(
        written: String
    ) throws {
        let device = try LoopDevice(size: Self.size)
        let server = try TestServer("\(device.path):rw")
        let run = try Run(device.path, on: server) {
            try writeFromOutside(written == "device" ? device.path : device.backingFile)
        }
        try withExtendedLifetime(device) { try run.expectRefusal(try run.goOn()) }
    }

    /// Such as a loop device, whose writes the kernel does not report.
    @Test func `an image that another program had open for writing is not proved unchanged`()
        throws
    {
        let path = try scratch.sparseFile("image", size: Self.size)
        let run = try Run(path, on: try makeServer()) {
            try must("sh", "-c", "exec 3<>\"$0\"", path)
        }
        let answer = try run.goOn()
        #expect(answer.status == 201, "\(answer.text)")
        #expect(try answer.decoded(as: SessionRecord.self).unchanged == nil)
    }

    @Test(.enabled(if: isRoot))
    func `a client that reads learns of writes to the file behind a loop device`() throws {
        let device = try LoopDevice(size: Self.size)
        let server = try TestServer("\(device.path)")
        func counter() throws -> [Int]? {
            try server.session(device.path, .read).lastingStamp
        }
        let (first, second) = (try counter(), try counter())
        #expect(first != nil && first == second)
        try touch(device.backingFile)
        let third = try counter()
        #expect(third != nil && third != first)
    }

    @Test func `a run continues if nobody else has written`() throws {
        // A child of another test may have the image open; then nothing proves that.
        for attempt in 0..<20 {
            let run = try start("image \(attempt)")
            let answer = try run.goOn()
            #expect(answer.status == 201, "\(answer.text)")
            if try answer.decoded(as: SessionRecord.self).unchanged == true { return }
        }
        Issue.record("no run continues")
    }

    @Test func `the answer to a first session does not say whether anything has changed`() throws {
        let run = try start()
        let record = try run.server.session(run.path, .write, size: Self.size, run: "other")
        #expect(record.unchanged == nil)
    }

    @Test(arguments: [nil, true])
    func `a write of a single byte ends the run, whatever may be overwritten`(overwrite: Bool?)
        throws
    {
        let run = try start()
        try touch(run.path)
        let before = try [UInt8](contentsOf: run.path)
        try run.expectRefusal(try run.goOn(overwrite: overwrite))
        #expect(try [UInt8](contentsOf: run.path) == before)
        #expect(run.server.server.sessionCount == 0)
    }

    @Test func `the server does not extend an image that was cut`() throws {
        let run = try start()
        try must("truncate", "-s", "4096", run.path)
        try run.expectRefusal(try run.goOn())
        #expect(try [UInt8](contentsOf: run.path).count == 4096)
    }

    @Test(arguments: [true, false])
    func `an image that was replaced or removed stays as it is`(isReplaced: Bool) throws {
        let run = try start()
        if isReplaced {
            try must("cp", run.path, scratch.file("new"))
            try must("truncate", "-s", "8192", scratch.file("new"))
            try must("mv", scratch.file("new"), run.path)
        } else {
            try must("rm", run.path)
        }
        try run.expectRefusal(try run.goOn())
        let size = (try? [UInt8](contentsOf: run.path))?.count
        #expect(size == (isReplaced ? 8192 : nil))
    }

    /// Where it has the same inode number, and nothing else proves anything: the server was restarted.
    @Test func `an image that was removed and created again is another device`() throws {
        let run = try start()
        let before = try FileStatus(path: run.path)
        for _ in 0..<100 {
            try must("rm", run.path)
            _ = try scratch.sparseFile("image", size: Self.size)
            if try FileStatus(path: run.path).inode == before.inode { break }
        }
        try run.expectRefusal(try run.goOn(on: try makeServer()))
    }

    @Test(arguments: [true, false])
    func `writes of another client's session count as changes`(hasWritten: Bool) throws {
        // A child of another test may have the image open; then nothing proves that.
        for attempt in 0..<20 {
            let run = try start("image \(attempt)")
            let other = try run.server.session(run.path, .write, size: Self.size, run: "other")
            let isBeside = try run.goOn()
            #expect(isBeside.status == 423, "\(isBeside.text)")
            if hasWritten {
                let zeros = [UInt8](repeating: 0, count: 512)
                #expect(try run.server.write(other.session, zeros, at: 0).status == 204)
            }
            #expect(try run.server.commit(other.session).status == 204)
            let answer = try run.goOn()
            if hasWritten { return try run.expectRefusal(answer) }
            if try answer.decoded(as: SessionRecord.self).unchanged == true { return }
        }
        Issue.record("no run continues")
    }

    @Test func `a session that ended without a commit proves nothing`() throws {
        let server = try makeServer()
        let path = try scratch.sparseFile("image", size: Self.size)
        let run = try Run(path, on: server)
        let second = try run.goOn().decoded(as: SessionRecord.self)
        #expect(try server.ask("DELETE", Route.session(second.session).path).status == 204)
        let third = try run.goOn()
        #expect(try third.decoded(as: SessionRecord.self).unchanged == nil)
    }

    @Test(.enabled(if: isRoot))
    func `a write to a device that is still in the page cache ends the run`() throws {
        let device = try LoopDevice(size: Self.size)
        let server = try TestServer("\(device.path):rw")
        let run = try Run(device.path, on: server)
        let file = try FileHandle(forUpdating: URL(fileURLWithPath: device.path))
        // The last close writes the page back, so this stays open.
        defer { try? file.close() }
        // No signature is looked for there, so no other read writes the page back.
        try file.seek(toOffset: UInt64(Self.size / 2))
        try file.write(contentsOf: Data(repeating: 0, count: 1))
        try run.expectRefusal(try run.goOn())
    }

    @Test(.enabled(if: isRoot), arguments: ["nothing", "device", "file", "discard"])
    func `writes to a loop device and to its file are both noticed`(change: String) throws {
        // A child of another test may have the file open; then nothing proves that.
        for _ in 0..<20 {
            let device = try LoopDevice(size: Self.size)
            let server = try TestServer("\(device.path):rw")
            let run = try Run(device.path, on: server)
            switch change {
            case "device": try touch(device.path)
            case "file": try touch(device.backingFile)
            case "discard": try must("blkdiscard", "-f", "-o", "0", "-l", "4096", device.path)
            default: break
            }
            let answer = try run.goOn()
            if change != "nothing" { return try run.expectRefusal(answer) }
            if try answer.decoded(as: SessionRecord.self).unchanged == true { return }
        }
        Issue.record("no run continues")
    }
}
