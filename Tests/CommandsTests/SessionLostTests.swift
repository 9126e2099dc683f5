// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import Glibc
import TestSupport
import Testing

/// A client that was stopped for longer than the session's timeout, while other programs may have
/// written to the target.
@Suite(.blocking, .timeLimit(.minutes(60))) struct SessionLostTests {
    private let scratch: ScratchDirectory
    private let source: String
    private let size = 16 << 20

    init() throws {
        scratch = try ScratchDirectory()
        source = try scratch.filledFile("source", size: size, seed: 1)
    }

    enum Change: CaseIterable {
        case nothing, oneByte, fileSystem, otherClient, replaced
    }

    /// Runs a push, stops it in the middle until its session has ended, and lets it go on.
    ///
    /// - Parameters:
    ///   - target: the path of a device or image.
    ///   - server: exports it.
    ///   - flags: of the push.
    ///   - isOver: whether its session has to end first.
    ///   - change: runs after that.
    ///   - during: runs before that.
    /// - Returns: the result of the push.
    /// - Throws: if the push does not get that far.
    private func pushStopped(
        _ target: String, on server: ServeProcess, _ flags: [String] = [],
        isOver: Bool = true, _ change: () throws -> Void, during: () throws -> Void = {}
    ) throws -> ProgramResult {
        let push = try RunningProgram(
            [program, "-c", "2", "--bwlimit", "2M"] + flags + [source, server.url(target)])
        let wanted = try [UInt8](contentsOf: source, count: 4096)
        let deadline = ContinuousClock.now + .seconds(60)
        while push.isRunning, (try? [UInt8](contentsOf: target, count: 4096)) != wanted {
            try #require(ContinuousClock.now < deadline)
            usleep(5_000)
        }
        push.signal(SIGSTOP)
        try during()
        while try isOver && !hasLostSession(server) {
            try #require(ContinuousClock.now < deadline)
            usleep(20_000)
        }
        try change()
        push.signal(SIGCONT)
        return try push.wait()
    }

    /// Whether the session of a stopped client has ended; an earlier one may have ended before the
    /// client was stopped.
    private func hasLostSession(_ server: ServeProcess) throws -> Bool {
        let log = try server.log()
        func count(_ text: String) -> Int { log.components(separatedBy: text).count }
        return log.contains("end=silent") && count("session begins") == count("session ends")
    }

    private func sync(_ data: UInt64, to url: String) throws -> String {
        let other = try scratch.filledFile("other", size: size, seed: data)
        let result = try blkferry(other, url)
        #expect(result.status == 0, "\(result)")
        return other
    }

    private func apply(_ change: Change, to target: String, on server: ServeProcess) throws {
        switch change {
        case .nothing: break
        case .oneByte: try overwrite(target, [UInt8](contentsOf: source, count: 1), at: 0)
        case .fileSystem: try must("mkfs.ext4", "-q", "-F", "-L", "precious", target)
        case .otherClient: _ = try sync(7, to: server.url(target))
        case .replaced:
            let new = try scratch.filledFile("new", size: size, seed: 3)
            try must("mv", new, target)
        }
    }

    private func check(_ target: String, on server: ServeProcess, _ change: Change) throws {
        var after: [UInt8] = []
        let result = try pushStopped(target, on: server) {
            try apply(change, to: target, on: server)
            after = try [UInt8](contentsOf: target, count: size)
        }
        if change == .nothing {
            #expect(result.status == 0, "\(result)")
            #expect(try areEqual(source, target))
            #expect(result.errors.isEmpty, "\(result)")
        } else {
            #expect(result.status == 4, "\(result)")
            #expect(result.errors.contains("nothing more was written"), "\(result)")
            #expect(result.errors.split(separator: "\n").count == 2, "\(result)")
            #expect(try [UInt8](contentsOf: target, count: size) == after)
        }
    }

    @Test(arguments: Change.allCases)
    func `a client that wakes up leaves a changed image alone`(change: Change) throws {
        let there = scratch.file("there")
        try FileManager.default.createDirectory(atPath: there, withIntermediateDirectories: false)
        let server = try ServeProcess("\(there)/:rw", options: ["--session-timeout", "1"])
        let image = change == .otherClient ? "missing" : "image"
        if change != .otherClient { _ = try scratch.sparseFile("there/\(image)", size: size) }
        try check("\(there)/\(image)", on: server, change)
    }

    @Test(.enabled(if: isRoot), arguments: Change.allCases.dropLast())
    func `a client that wakes up leaves a changed device alone`(change: Change) throws {
        let device = try LoopDevice(size: size)
        let server = try ServeProcess("\(device.path):rw", options: ["--session-timeout", "1"])
        try check(device.path, on: server, change)
    }

    /// Where the run has compared already, so that it would not write there again.
    @Test(arguments: isRoot ? [true, false] : [false])
    func `a write before the session ended is not forgotten`(isDevice: Bool) throws {
        let device = try isDevice ? LoopDevice(size: size) : nil
        let target = try device?.path ?? scratch.sparseFile("image", size: size)
        let server = try ServeProcess("\(target):rw", options: ["--session-timeout", "10"])
        let result = try pushStopped(target, on: server) {
        } during: {
            try overwrite(target, [1, 2, 3], at: 0)
        }
        #expect(result.status == 4, "\(result)")
        #expect(
            result.errors.contains(
                "another program wrote to it before the session ended; nothing more was written"),
            "\(result)")
        withExtendedLifetime(device) {}
    }

    @Test(.enabled(if: isRoot))
    func `a write through the partition's disk before the session ended is not forgotten`() throws {
        let disk = try DiskWithPartitions(size: size)
        let server = try ServeProcess("\(disk.first):rw", options: ["--session-timeout", "10"])
        let result = try pushStopped(disk.first, on: server) {
        } during: {
            try disk.overwriteFirst(through: disk.disk.path)
        }
        #expect(result.status == 4, "\(result)")
        #expect(
            result.errors.contains("another program wrote to it before the session ended"),
            "\(result)")
    }

    /// With `--overwrite` as well, which permits the loss of what was there at the start only.
    @Test(.enabled(if: isRoot), arguments: [true, false])
    func `a restarted server knows when an earlier session ended`(isWritten: Bool) throws {
        let device = try LoopDevice(size: size)
        let server = try ServeProcess("\(device.path):rw", options: ["--session-timeout", "1"])
        let result = try pushStopped(device.path, on: server) {
            try server.kill()
            if isWritten { try fill(device.path, seed: 9, size: 4096, offset: 8192) }
            try server.startAgain()
        }
        #expect(result.status == (isWritten ? 4 : 0), "\(result)")
        #expect(try areEqual(source, device.path) == !isWritten)
        #expect(!result.errors.contains("everything was compared again"), "\(result)")
    }

    @Test(.enabled(if: isRoot), arguments: [[], ["--overwrite"], ["--whole-file"]])
    func `after a server restart everything is compared again, under the gate`(flags: [String])
        throws
    {
        let device = try LoopDevice(size: size)
        let server = try ServeProcess("\(device.path):rw")
        // A server that is killed leaves no change counter of a session that goes on.
        let result = try pushStopped(device.path, on: server, flags, isOver: false) {
            try server.kill()
            // In a window that was finished.
            try fill(device.path, seed: 9, size: 4096, offset: 8192)
            try server.startAgain()
        }
        #expect(result.status == 0, "\(result)")
        #expect(result.errors.contains("everything was compared again"), "\(result)")
        #expect(try areEqual(source, device.path))
        let refused = try LoopDevice(size: size)
        let second = try ServeProcess("\(refused.path):rw")
        var after: [UInt8] = []
        let end = try pushStopped(refused.path, on: second, flags, isOver: false) {
            try second.kill()
            try must("mkfs.ext4", "-q", "-F", "-L", "precious", refused.path)
            after = try [UInt8](contentsOf: refused.path, count: size)
            try second.startAgain()
        }
        #expect(end.status == 4 && end.errors.contains("precious"), "\(end)")
        #expect(try [UInt8](contentsOf: refused.path, count: size) == after)
    }
}
