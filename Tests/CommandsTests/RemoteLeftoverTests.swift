// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// What a server's device has behind the end of a smaller source.
@Suite(.enabled(if: isRoot, "loop devices need root"), .blocking, .timeLimit(.minutes(60)))
struct RemoteLeftoverTests {
    struct Leftover: CustomTestStringConvertible {
        var testDescription: String
        var make: @Sendable (String) throws -> Void
        var name: String
    }

    static let all: [Leftover] = [
        Leftover(
            testDescription: "md 0.90",
            make: { try Superblocks.md090($0, uuid: UUID(), member: 0) },
            name: "linux_raid_member UUID="),
        Leftover(
            testDescription: "md 1.0",
            make: { try Superblocks.md1($0, minor: 0, set: UUID(), device: UUID()) },
            name: "linux_raid_member \"host:0\" UUID="),
        Leftover(
            testDescription: "ZFS", make: { try Superblocks.zfs($0, pool: 1, device: 2) },
            name: "zfs_member \"tank\" UUID=1"),
        Leftover(
            testDescription: "DDF",
            make: { try Superblocks.ddf($0, group: "LSI     01234567") }, name: "ddf_raid_member"),
        Leftover(
            testDescription: "the backup of a GPT",
            make: {
                try must("sgdisk", "-n", "1:0:+8M", $0)
                try Superblocks.put([UInt8](repeating: 0, count: 40 * 512), at: 0, in: $0)
            }, name: "backup gpt partition table UUID="),
    ]

    private let scratch: ScratchDirectory
    private let source: String
    private let sourceSize = 16 << 20
    private let targetSize = 80 << 20

    init() throws {
        scratch = try ScratchDirectory()
        source = try scratch.sparseFile("source", size: sourceSize)
        try must("mkfs.ext4", "-q", "-F", source)
    }

    /// A device that is a replica of the source already, with something behind it.
    private func disk(with leftover: Leftover) throws -> LoopDevice {
        let image = try scratch.sparseFile("disk", size: targetSize)
        try leftover.make(image)
        try must("dd", "if=\(source)", "of=\(image)", "bs=1M", "conv=notrunc", "status=none")
        return try LoopDevice(backingFile: image)
    }

    @Test(arguments: all)
    func `data behind the source's end is refused without --overwrite, and removed with it`(
        leftover: Leftover
    ) throws {
        let disk = try disk(with: leftover)
        let server = try ServeProcess("\(disk.path):rw")
        let url = server.url(disk.path)
        let before = try must("sha256sum", disk.path)
        for options in [[], ["--dry-run"]] {
            let refused = try RunningProgram(
                [program, "--size-policy", "prefix"] + options + [source, url]
            ).wait()
            #expect(refused.status == 2, "\(refused)")
            #expect(refused.errors.contains(leftover.name), "\(refused)")
            #expect(refused.errors.contains("behind the source's end, which would be lost"))
        }
        #expect(try must("sha256sum", disk.path) == before)
        let done = try blkferry("--size-policy", "prefix", "--overwrite", source, url)
        #expect(done.status == 0, "\(done)")
        #expect(done.errors.contains("behind the source's end is removed"), "\(done)")
        #expect(try must("wipefs", "--noheadings", "--output", "TYPE", disk.path) == "ext4\n")
        #expect(try must("blkid", "-p", "-o", "value", "-s", "TYPE", disk.path) == "ext4\n")
        let again = try blkferry("--size-policy", "prefix", source, url)
        #expect(again.status == 0 && again.errors.isEmpty, "\(again)")
    }

    @Test func `other data behind the source's end is left alone`() throws {
        let disk = try disk(with: Self.all[1])
        let place = 40 << 20
        try fill(disk.path, seed: 9, size: 1 << 20, offset: place)
        let server = try ServeProcess("\(disk.path):rw")
        let done = try blkferry(
            "--size-policy", "prefix", "--overwrite", source, server.url(disk.path))
        #expect(done.status == 0, "\(done)")
        var random = SeededGenerator(seed: 9)
        let kept = try Superblocks.bytes(of: disk.path, at: place, count: 1 << 20)
        #expect(kept == random.bytes(1 << 20))
    }

    /// The server removes old superblocks behind the source's end, but nothing that the run wrote.
    @Test func `a backup GPT that the run has moved is not removed`() throws {
        let image = scratch.file("partitioned")
        try must("truncate", "-s", "16M", image)
        try must("sgdisk", "-n", "1:2048:+8M", image)
        let old = try scratch.sparseFile("disk", size: targetSize)
        try must("sgdisk", "-n", "1:2048:+4M", old)
        let disk = try LoopDevice(backingFile: old)
        let server = try ServeProcess("\(disk.path):rw")
        for _ in 0..<2 {
            let done = try blkferry(
                "--move-backup-gpt", "--overwrite", "--verify", image, server.url(disk.path))
            #expect(done.status == 0, "\(done)")
            try must("blockdev", "--flushbufs", disk.path)
            #expect(try must("sgdisk", "-v", disk.path).contains("No problems found"))
        }
    }

    @Test func `an interrupted push removes nothing behind the source's end`() throws {
        try fill(source, seed: 5, size: 8 << 20, offset: 8 << 20)
        let disk = try disk(with: Self.all[1])
        try fill(disk.path, seed: 6, size: 8 << 20, offset: 8 << 20)
        let server = try ServeProcess("\(disk.path):rw")
        let end = { try must("sh", "-c", "tail -c 1M \(disk.path) | sha256sum") }
        let before = try end()
        let block = { try Superblocks.bytes(of: disk.path, at: 8 << 20, count: 4096) }
        let old = try block()
        let run = try RunningProgram([
            program, "--size-policy", "prefix", "--overwrite", "-c", "1", "--bwlimit", "1M", source,
            server.url(disk.path),
        ])
        while try run.isRunning && block() == old { usleep(2_000) }
        run.signal(SIGTERM)
        let result = try run.wait()
        #expect(result.status == 130, "\(result)")
        #expect(try end() == before)
    }
}
