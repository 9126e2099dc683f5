// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// How much of a replica a run may change.
@Suite(.blocking, .timeLimit(.minutes(60))) struct MaximumChangeTests {
    private let scratch: ScratchDirectory
    private let source: String
    private let target: String
    private let size = 32 << 20

    /// Two clones of one template, one of which has changed.
    init() throws {
        scratch = try ScratchDirectory()
        (source, target) = try scratch.fileSystem(clonedAs: "target", size: size)
    }

    /// Makes so many MiB of the target differ, apart from what the file system needs.
    private func diverge(_ megabytes: Int) throws {
        try fill(target, seed: 2, size: megabytes << 20, offset: 2 << 20)
    }

    private func content() throws -> [UInt8] { try [UInt8](contentsOf: target) }

    @Test(arguments: [[], ["--dry-run"]])
    func `more change than --max-change allows is refused, and nothing is written`(
        options: [String]
    ) throws {
        try diverge(8)
        let before = try content()
        let result = try RunningProgram(
            [program, "--max-change", "20", "--json", source, target] + options
        ).wait()
        #expect(result.status == 2, "\(result)")
        #expect(result.errors.contains("refused: 25"), "\(result)")
        #expect(result.output.contains("\"cause\":\"max-change\""))
        #expect(try content() == before)
    }

    @Test func `change within --max-change is written and reported`() throws {
        try diverge(8)
        let (result, json) = try blkferryJSON("--max-change", "26%", source, target)
        #expect(result.status == 0, "\(result)")
        #expect(try #require(json.double("estimatedChange")) >= 25)
        #expect(try areEqual(source, target))
        #expect(try blkferry("--max-change", "0", source, target).status == 0)
    }

    @Test func `a target that a refused run would extend keeps its size, also on a server`() throws
    {
        try must("truncate", "-s", "\(size / 2)", target)
        let server = try ServeProcess("\(target):rw")
        for name in [target, server.url(target)] {
            try diverge(8)
            let before = try content()
            let result = try blkferry("--max-change", "10", source, name)
            #expect(result.status == 2, "\(result)")
            #expect(try content() == before)
        }
    }

    @Test func `a moved backup of the GPT is no change`() throws {
        let source = try LoopDevice(size: 8 << 20)
        let target = try LoopDevice(size: 12 << 20)
        try must("sh", "-c", "printf 'label: gpt\n,1M\n' | sfdisk -q \(source.path)")
        #expect(try blkferry(source.path, target.path, "--move-backup-gpt").status == 0)
        let again = try blkferry(
            source.path, target.path, "--move-backup-gpt", "--max-change", "0")
        #expect(again.status == 0, "\(again)")
    }

    @Test func `a new image has no limit of change`() throws {
        #expect(try blkferry("--max-change", "0", source, scratch.file("new")).status == 0)
    }

    @Test func `a replica of another machine is reported before it is written`() throws {
        try diverge(28)
        let server = try ServeProcess("\(target):rw")
        let kept = try content()
        for name in [target, server.url(target)] {
            try overwrite(target, kept, at: 0)
            let (result, json) = try blkferryJSON(source, name)
            #expect(result.status == 0, "\(result)")
            let warnings = try #require(json.strings("warnings"))
            #expect(warnings.count { $0.contains("the replica of another machine") } == 1)
            #expect(try #require(json.double("estimatedChange")) > 50)
            #expect(try areEqual(source, target))
            let next = try blkferry(source, name)
            #expect(next.status == 0 && next.errors.isEmpty, "\(next)")
        }
    }

    @Test(arguments: ["101", "-1", "x", "nan", ""])
    func `a limit that is no percentage is wrong usage`(text: String) throws {
        #expect(try blkferry("--max-change=\(text)", source, target).status == 64)
    }

    @Test func `without a comparison there is no limit of change`() throws {
        #expect(try blkferry("--max-change", "5", "-W", source, target).status == 64)
    }

    /// Meanwhile the target may have become the replica of another machine.
    @Test func `a run with --max-change ends if its session is lost`() throws {
        try fill(source, seed: 4, size: 8 << 20, offset: 8 << 20)
        try must("cp", "--sparse=always", source, target)
        try fill(target, seed: 5, size: 4 << 20, offset: 8 << 20)
        let sister = scratch.file("sister")
        try must("cp", "--sparse=always", source, sister)
        try fill(sister, seed: 6, size: 24 << 20, offset: 8 << 20)
        let server = try ServeProcess("\(target):rw")
        let run = try RunningProgram([
            program, "--max-change", "20", "-c", "1", "--bwlimit", "384K", source,
            server.url(target),
        ])
        let old = try Superblocks.bytes(of: target, at: 8 << 20, count: 4096)
        while try run.isRunning && Superblocks.bytes(of: target, at: 8 << 20, count: 4096) == old {
            usleep(2_000)
        }
        try server.kill()
        try must("dd", "if=\(sister)", "of=\(target)", "bs=1M", "conv=notrunc", "status=none")
        try server.startAgain()
        let result = try run.wait()
        #expect(result.status == 4, "\(result)")
        #expect(result.errors.contains("its session has ended"), "\(result)")
        #expect(try areEqual(sister, target))
    }
}
