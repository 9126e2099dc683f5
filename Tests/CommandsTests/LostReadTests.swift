// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import Glibc
import TestSupport
import Testing

/// A client that was stopped for longer than the session's timeout, while other programs may have
/// written to the source.
@Suite(.blocking, .timeLimit(.minutes(60))) struct LostReadTests {
    private let scratch: ScratchDirectory
    private let size = 24 << 20

    init() throws { scratch = try ScratchDirectory() }

    enum Change: CaseIterable {
        case nothing, oneByte, rewritten, madeAgain, replaced, removed
    }

    /// Runs a command that reads from a server, stops it in the middle until its session has ended, and
    /// lets it go on.
    private func run(
        _ arguments: [String], on server: ServeProcess, _ change: () throws -> Void
    ) throws -> ProgramResult {
        let run = try RunningProgram([program] + arguments + ["-v", "-c", "2"])
        func count(_ text: String) throws -> Int {
            try server.log().components(separatedBy: text).count - 1
        }
        while try count("session begins") == 0 {
            try #require(run.isRunning)
            usleep(5_000)
        }
        // The first windows.
        usleep(300_000)
        run.signal(SIGSTOP)
        try #require(run.isRunning)
        // On a busy machine an earlier session may have ended, and the client has a second one.
        let haveEnded = try becomesTrue {
            try count("end=silent") > 0 && count("session ends") >= count("session begins")
        }
        try #require(haveEnded)
        try change()
        run.signal(SIGCONT)
        return try run.wait()
    }

    private func apply(_ change: Change, to source: String) throws {
        let other = scratch.file("other")
        switch change {
        case .nothing: break
        case .oneByte: try overwrite(source, [1], at: size - 1)
        case .rewritten: try fill(source, seed: 2, size: size)
        case .madeAgain:
            let inode = try must("stat", "-c", "%i", source)
            for _ in 0..<100 {
                try must("rm", source)
                try must("truncate", "-s", "\(size)", source)
                if try must("stat", "-c", "%i", source) == inode { break }
            }
            try fill(source, seed: 3, size: size)
        case .replaced:
            try must("cp", source, other)
            try must("mv", other, source)
        case .removed: try must("rm", source)
        }
    }

    private func check(
        _ source: String, _ arguments: (String) -> [String], _ change: Change
    ) throws {
        try fill(source, seed: 1, size: size)
        let server = try ServeProcess(source, options: ["--session-timeout", "1"])
        let result = try run(arguments(server.url(source)), on: server) {
            try apply(change, to: source)
        }
        switch change {
        case .nothing: #expect(result.status == 0, "\(result)")
        // There is no such export any more.
        case .removed: #expect(result.status == 3 || result.status == 4, "\(result)")
        default: #expect(result.status == 4, "\(result)")
        }
        if [.oneByte, .rewritten].contains(change) {
            #expect(
                result.errors.contains(
                    "open again: the session has ended, and another program has written to it"),
                "\(result)")
        }
        #expect(!result.errors.contains("has written") || change != .nothing, "\(result)")
    }

    @Test(arguments: Change.allCases)
    func `a pull ends where its source image was changed while the session was lost`(
        change: Change
    ) throws {
        let source = try scratch.sparseFile("source", size: size)
        try check(source, { ["-W", "--bwlimit", "4M", $0, scratch.file("target")] }, change)
    }

    @Test func `verify does not compare two states of its source`() throws {
        let source = try scratch.sparseFile("source", size: size)
        let target = try scratch.filledFile("target", size: size, seed: 4)
        try check(source, { ["verify", "--bwlimit", "20K", $0, target] }, .oneByte)
    }

    @Test(.enabled(if: isRoot), arguments: [.nothing, .oneByte] as [Change])
    func `a pull ends where its source device was changed while the session was lost`(
        change: Change
    ) throws {
        let device = try LoopDevice(size: size)
        try check(device.path, { ["-W", "--bwlimit", "4M", $0, scratch.file("target")] }, change)
    }

    @Test(.enabled(if: isRoot))
    func `a pull ends where the file behind its source device was changed`() throws {
        let device = try LoopDevice(size: size)
        try fill(device.path, seed: 1, size: size)
        let result = try pull(device.path) { try overwrite(device.backingFile, [1], at: 0) }
        #expect(result.status == 4, "\(result)")
        #expect(result.errors.contains("another program has written to it"), "\(result)")
    }

    /// The counts of a loop device on a loop device lack writes to the lower one.
    @Test(.enabled(if: isRoot), arguments: [true, false])
    func `a pull ends where nothing proves that its source is unchanged`(isChanged: Bool) throws {
        let lower = try LoopDevice(size: size)
        try fill(lower.path, seed: 1, size: size)
        let upper = try LoopDevice(backingFile: lower.path)
        let result = try withExtendedLifetime(upper) {
            try pull(upper.path) { if isChanged { try overwrite(lower.path, [1], at: 0) } }
        }
        #expect(result.status == 4, "\(result)")
        #expect(
            result.errors.contains("it is unknown whether another program has written"), "\(result)"
        )
    }

    private func pull(_ source: String, _ change: () throws -> Void) throws -> ProgramResult {
        let server = try ServeProcess(source, options: ["--session-timeout", "1"])
        return try run(
            ["-W", "--bwlimit", "4M", server.url(source), scratch.file("target")], on: server,
            change)
    }
}
