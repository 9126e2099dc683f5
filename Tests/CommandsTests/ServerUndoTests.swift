// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// `serve --undo-directory`.
@Suite(.blocking, .timeLimit(.minutes(60))) struct ServerUndoTests {
    private let rig: UndoRig

    init() throws { rig = try UndoRig() }

    private func serve(_ exports: String..., options: [String] = []) throws -> ServeProcess {
        try ServeProcess(
            exports[0],
            options: ["--undo-directory", rig.memory.path] + options
                + exports.dropFirst().flatMap { ["--export", $0] },
            prefix: ["env", "STATE_DIRECTORY=\(rig.scratch.file("state"))"])
    }

    private func journals() throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: rig.memory.path)
            .filter { $0.hasSuffix(".undo") }.sorted()
    }

    @Test func `each writing session has a journal, which the client names`() throws {
        let copy = try rig.copy(of: rig.target)
        let server = try serve("\(rig.target):rw")
        let (run, json) = try rig.blkferryJSON(
            "--overwrite", rig.source, server.url(rig.target))
        #expect(run.status == 0, "\(run)")
        #expect(try areEqual(rig.source, rig.target))
        let name = try #require(journals().first)
        let undo = try #require(json.record("undo"))
        #expect(undo.string("journal") == name && undo.bool("server") == true)
        #expect(undo.bool("usable") == true && undo.int("bytes") ?? 0 > 3 << 20)
        // The session has ended, so nothing uses the target.
        let back = try rig.blkferry("rollback", rig.memory.file(name))
        #expect(back.status == 0, "\(back)")
        #expect(try areEqual(copy, rig.target))
    }

    @Test func `a session that writes nothing leaves no journal`() throws {
        try must("cp", rig.source, rig.target)
        let server = try serve("\(rig.target):rw")
        let (run, json) = try rig.blkferryJSON(rig.source, server.url(rig.target))
        #expect(run.status == 0 && json.record("undo") == nil, "\(run)")
        #expect(try journals() == [])
    }

    @Test func `sessions are rolled back newest first`() throws {
        let copy = try rig.copy(of: rig.target)
        let second = try rig.scratch.filledFile("second", size: rig.size, seed: 7)
        let server = try serve("\(rig.target):rw")
        #expect(
            try rig.blkferry("--overwrite", rig.source, server.url(rig.target)).status == 0)
        let first = try #require(journals().first)
        #expect(try rig.blkferry("--overwrite", second, server.url(rig.target)).status == 0)
        let last = try #require(journals().first { $0 != first })
        #expect(try rig.blkferry("rollback", rig.memory.file(first)).status == 2)
        #expect(try rig.blkferry("rollback", rig.memory.file(last)).status == 0)
        #expect(try areEqual(rig.source, rig.target))
        #expect(try rig.blkferry("rollback", rig.memory.file(first)).status == 0)
        #expect(try areEqual(copy, rig.target))
    }

    @Test func `a server that is killed leaves a journal that works`() throws {
        let copy = try rig.copy(of: rig.target)
        let server = try serve("\(rig.target):rw")
        let client = try RunningProgram(
            [
                program, "--overwrite", "--retry-for", "0s", "--bwlimit", "2M", rig.source,
                server.url(rig.target),
            ], environment: rig.environment)
        while client.isRunning, try areEqual(copy, rig.target) { usleep(20_000) }
        let name = try #require(journals().first)
        let used = try rig.blkferry("rollback", rig.memory.file(name))
        #expect(used.status == 2 && used.errors.contains("a run or another rollback uses it"))
        try server.kill()
        _ = try client.wait()
        let back = try rig.blkferry("rollback", rig.memory.file(name))
        #expect(back.status == 0, "\(back)")
        #expect(try areEqual(copy, rig.target))
    }

    @Test func `at its limit a session ends with an error before the write`() throws {
        let copy = try rig.copy(of: rig.target)
        let server = try serve("\(rig.target):rw", options: ["--undo-limit", "4500K"])
        let run = try rig.blkferry("--overwrite", rig.source, server.url(rig.target))
        #expect(run.status == 3 && run.errors.contains("has reached its limit"), "\(run)")
        // If the first request was too large, nothing was written, and there is no journal.
        if let name = try journals().first {
            let back = try rig.blkferry("rollback", rig.memory.file(name))
            #expect(back.status == 0, "\(back)")
        }
        #expect(try areEqual(copy, rig.target))
    }

    @Test func `a directory on the file system of the target is refused`() throws {
        try must("mkdir", rig.scratch.file("undo"))
        let before = try rig.copy(of: rig.target)
        let server = try ServeProcess(
            "\(rig.target):rw", options: ["--undo-directory", rig.scratch.file("undo")])
        let run = try rig.blkferry("--overwrite", rig.source, server.url(rig.target))
        #expect(
            run.status == 2 && run.errors.contains("on the file system of the target"), "\(run)")
        #expect(try areEqual(before, rig.target))
    }

    @Test func `an image that a client creates is removed by a rollback`() throws {
        try must("mkdir", rig.scratch.file("images"))
        let server = try serve(rig.scratch.file("images/") + ":rw")
        let new = rig.scratch.file("images/new")
        let run = try rig.blkferry(rig.source, server.url(new))
        #expect(run.status == 0, "\(run)")
        #expect(try areEqual(rig.source, new))
        let name = try #require(journals().first)
        let back = try rig.blkferry("rollback", rig.memory.file(name))
        #expect(back.status == 0 && back.output.contains("removed"), "\(back)")
        #expect(!FileManager.default.fileExists(atPath: new))
    }

    @Test func `what clients of pdiffcopy write is kept as well`() throws {
        let copy = try rig.copy(of: rig.target)
        let server = try serve("\(rig.target):rw")
        let block = try rig.scratch.filledFile("block", size: 8192, seed: 11)
        let url = server.url("/blocks") + "?filename=\(rig.target):overwrite&offset=4096"
        try must("curl", "-sSf", "--data-binary", "@\(block)", url)
        #expect(try !areEqual(copy, rig.target))
        try server.kill()
        let name = try #require(journals().first)
        let back = try rig.blkferry("rollback", rig.memory.file(name))
        #expect(back.status == 0, "\(back)")
        #expect(try areEqual(copy, rig.target))
    }

    @Test func `a directory that cannot be used is an error at the start`() throws {
        let none = try rig.blkferry(
            "serve", "--listen", "127.0.0.1:0", "--export", rig.target, "--undo-directory",
            rig.scratch.file("none"))
        #expect(none.status == 3 && none.errors.contains("open: No such file"), "\(none)")
        #expect(
            try rig.blkferry("serve", "--export", rig.target, "--undo-limit", "1M").status == 64)
    }

    @Test(.enabled(if: isRoot, "needs root"))
    func `a server that has become another user keeps journals in its directory`() throws {
        let copy = try rig.copy(of: rig.target)
        try must("chmod", "755", rig.scratch.path, rig.memory.path)
        try must("chown", "nobody", rig.target, rig.memory.path)
        let server = try serve("\(rig.target):rw", options: ["--user", "nobody"])
        let run = try rig.blkferry("--overwrite", rig.source, server.url(rig.target))
        #expect(run.status == 0, "\(run)")
        let name = try #require(journals().first)
        // The journal of another user does not say on its own what root overwrites.
        let refused = try rig.blkferry("rollback", rig.memory.file(name))
        #expect(refused.status == 2, "\(refused)")
        let back = try rig.blkferry("rollback", rig.memory.file(name), rig.target)
        #expect(back.status == 0, "\(back)")
        #expect(try areEqual(copy, rig.target))
    }
}
