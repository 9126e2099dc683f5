// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import Glibc
import TestSupport
import Testing

/// `--checkpoint` between two machines.
@Suite(.blocking, .timeLimit(.minutes(60)), .enabled(if: isRoot, "loop devices need root"))
struct RemoteCheckpointTests {
    private let scratch: ScratchDirectory
    private let file: String
    private let size = 48 << 20
    private let near: LoopDevice
    private let far: LoopDevice
    private let server: ServeProcess

    init() throws {
        scratch = try ScratchDirectory()
        file = scratch.file("checkpoint")
        near = try LoopDevice(size: size)
        far = try LoopDevice(size: size)
        server = try ServeProcess("\(far.path):rw", "\(scratch.path)/:rw")
    }

    private var exists: Bool { FileManager.default.fileExists(atPath: file) }

    /// Starts a run that takes about ten seconds, and waits until a third of it is done.
    private func start(_ from: String, _ to: String, _ source: String, _ target: String)
        throws -> RunningProgram
    {
        let run = try RunningProgram([
            program, "--json", "-c", "2", "--bwlimit", "5M", "--retry-for", "0", "--compress",
            "none", "--checkpoint", file, from, to,
        ])
        let place = 16 << 20
        let wanted = try [UInt8](contentsOf: source, count: place).suffix(4096)
        while run.isRunning {
            let bytes = (try? [UInt8](contentsOf: target, count: place)) ?? []
            if bytes.count == place, bytes.suffix(4096).elementsEqual(wanted) { break }
            usleep(20_000)
        }
        return run
    }

    private func interrupted(_ run: RunningProgram) throws -> Int {
        run.signal(SIGTERM)
        let result = try run.wait()
        #expect(result.status == 130, "\(result)")
        let done = try #require(
            try printedRecord(of: result).record("checkpoint")?.int("done"), "\(result)")
        #expect(done > 4 << 20 && done < size)
        return done
    }

    private func finish(after done: Int, _ from: String, _ to: String) throws {
        let (result, record) = try blkferryJSON("--checkpoint", file, from, to)
        #expect(result.status == 0 && result.errors == "", "\(result)")
        let use = try #require(record.record("checkpoint"))
        #expect(use.int("resumed") == done)
        #expect(try #require(use.int("sampled")) * 20 <= done)
        #expect(record.int("compared") == size - done && !exists)
        #expect(try areEqual(near.path, far.path))
    }

    @Test func `a push continues, also to another server on that machine`() throws {
        try fill(near.path, seed: 1, size: size)
        let url = server.url(far.path)
        let done = try interrupted(try start(near.path, url, near.path, far.path))
        try server.kill()
        try server.startAgain()
        try finish(after: done, near.path, url)
    }

    @Test func `a push compares everything if the target was written in between`() throws {
        try fill(near.path, seed: 1, size: size)
        let url = server.url(far.path)
        _ = try interrupted(try start(near.path, url, near.path, far.path))
        try overwrite(far.path, [1, 2, 3], at: 5000)
        let (result, record) = try blkferryJSON("--checkpoint", file, near.path, url)
        #expect(result.status == 0 && record.int("compared") == size, "\(result)")
        #expect(record.record("checkpoint")?.string("fallback") == "written")
        #expect(result.errors.contains("falls back to a full comparison"))
        #expect(try areEqual(near.path, far.path))
    }

    @Test func `a push whose server was lost leaves no checkpoint`() throws {
        try fill(near.path, seed: 1, size: size)
        let url = server.url(far.path)
        let run = try start(near.path, url, near.path, far.path)
        try server.kill()
        let result = try run.wait()
        #expect(result.status == 4, "\(result)")
        #expect(result.errors.contains("no checkpoint is left") && !exists)
        try server.startAgain()
        let (second, record) = try blkferryJSON("--checkpoint", file, near.path, url)
        #expect(second.status == 0 && record.int("compared") == size, "\(second)")
        #expect(try areEqual(near.path, far.path))
    }

    @Test(arguments: [false, true])
    func `a pull continues after a signal, and after its server was lost`(isLost: Bool) throws {
        try fill(far.path, seed: 1, size: size)
        let url = server.url(far.path)
        let run = try start(url, near.path, far.path, near.path)
        let done: Int
        if isLost {
            try server.kill()
            let result = try run.wait()
            #expect(result.status == 4, "\(result)")
            done = try #require(
                try printedRecord(of: result).record("checkpoint")?.int("done"), "\(result)")
            try server.startAgain()
        } else {
            done = try interrupted(run)
        }
        try finish(after: done, url, near.path)
    }

    @Test func `a pull compares everything if the source was written in between`() throws {
        try fill(far.path, seed: 1, size: size)
        let url = server.url(far.path)
        _ = try interrupted(try start(url, near.path, far.path, near.path))
        try overwrite(far.path, [1, 2, 3], at: 5000)
        let (result, record) = try blkferryJSON("--checkpoint", file, url, near.path)
        #expect(result.status == 0 && record.int("compared") == size, "\(result)")
        #expect(record.record("checkpoint")?.string("fallback") == "written")
        #expect(try areEqual(near.path, far.path))
    }

    @Test func `a pull of an image has no checkpoint, and says so`() throws {
        let image = try scratch.filledFile("image", size: size, seed: 1)
        let (result, record) = try blkferryJSON(
            "--checkpoint", file, server.url(image), near.path)
        #expect(result.status == 0, "\(result)")
        #expect(result.errors.contains("no checkpoint is left"))
        #expect(result.errors.contains("no persistent change counter: its server only reads it"))
        #expect(record.record("checkpoint")?.int("resumed") == 0 && !exists)
    }

    @Test func `a push to an image continues`() throws {
        try fill(near.path, seed: 1, size: size)
        let image = try scratch.sparseFile("image", size: size)
        let url = server.url(image)
        let done = try interrupted(try start(near.path, url, near.path, image))
        let (result, record) = try blkferryJSON("--checkpoint", file, near.path, url)
        #expect(result.status == 0 && result.errors == "", "\(result)")
        #expect(record.record("checkpoint")?.int("resumed") == done)
        #expect(try areEqual(near.path, image))
    }

    @Test func `a run between local devices continues`() throws {
        try fill(near.path, seed: 1, size: size)
        let (_, record) = try night(
            slowReads(of: near.path, by: 250), ["--checkpoint", file, near.path, far.path])
        let done = try #require(record.record("checkpoint")?.int("done"))
        try finish(after: done, near.path, far.path)
    }

    @Test func `the file behind the target, and a file on it, are no checkpoints`() throws {
        let backing = try must("losetup", "-n", "-O", "BACK-FILE", far.path)
            .trimmingCharacters(in: .whitespacesAndNewlines)
        let before = try [UInt8](contentsOf: far.path)
        let refused = try blkferry("--checkpoint", backing, near.path, far.path)
        #expect(refused.status == 2, "\(refused)")
        #expect(try [UInt8](contentsOf: far.path) == before)
        let mount = try LoopMount()
        let inside = try blkferry(
            "--checkpoint", "\(mount.path)/checkpoint", "--overwrite", "--size-policy", "prefix",
            near.path, mount.loop.path)
        #expect(inside.status == 2, "\(inside)")
    }
}
