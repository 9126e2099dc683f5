// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockReplication
import TestSupport
import Testing

@testable import BlockReplication

/// A disk with a GPT onto one that is larger.
@Suite(.blocking, .timeLimit(.minutes(60)))
struct MovedBackupTests {
    private static func sync(
        _ source: String, _ target: String, _ action: Replication.Action = .synchronize,
        overwrites: Bool = false, moves: Bool = true
    ) throws -> Replication.Report {
        var options = Replication.Options()
        options.sizePolicy = .prefix
        options.movesBackupTable = moves
        options.overwrites = overwrites
        let report = try Replication(action, from: source, to: target, options: options).run()
        #expect(report.error == nil)
        return report
    }

    private static func problems(_ path: String) throws -> String {
        try must("sgdisk", "-v", path)
    }

    @Test func `the backup GPT is at the target's end, and the next run finds nothing to do`()
        throws
    {
        let scratch = try ScratchDirectory()
        let source = try scratch.sparseFile("source", size: 16 << 20)
        let target = try scratch.sparseFile("target", size: 24 << 20)
        try must("sgdisk", "-n", "1:0:+8M", source)
        _ = try Self.sync(source, target)
        #expect(try Self.problems(target).contains("No problems found"))
        #expect(try Self.sync(source, target).different == 0)
        #expect(try Self.sync(source, target, .compare).different == 0)
        #expect(try Self.sync(source, target, .compare, moves: false).different == 4096)
        try must("sgdisk", "-n", "2:0:+2M", source)
        _ = try Self.sync(source, target)
        #expect(try Self.problems(target).contains("No problems found"))
        #expect(try must("sgdisk", "-i", "2", target).contains("Partition unique GUID"))
        // As sgdisk itself does it.
        let other = try scratch.sparseFile("other", size: 24 << 20)
        _ = try Self.sync(source, other, moves: false)
        try must("sgdisk", "--move-second-header", other)
        try must("cmp", "-i", "512", target, other)
    }

    @Test(arguments: [1, 10])
    func `a comparison and a dry run find a damaged backup GPT`(sectorsBeforeEnd: Int) throws {
        let scratch = try ScratchDirectory()
        let source = try scratch.sparseFile("source", size: 16 << 20)
        let target = try scratch.sparseFile("target", size: 24 << 20)
        try must("sgdisk", "-n", "1:0:+8M", source)
        _ = try Self.sync(source, target)
        let place = (24 << 20) / 512 - sectorsBeforeEnd
        try must(
            "sh", "-c",
            "printf x | dd of=\(target) bs=512 seek=\(place) conv=notrunc status=none")
        for action in [Replication.Action.compare, .dryRun] {
            let report = try Self.sync(source, target, action)
            #expect(report.different == 0 && report.backupTableDiffers)
            #expect(report.closingWarnings.contains("\(target): the backup GPT at its end differs"))
            #expect(try !Self.sync(source, target, action, moves: false).backupTableDiffers)
        }
        #expect(try !Self.sync(source, target).backupTableDiffers)
        #expect(try !Self.sync(source, target, .compare).backupTableDiffers)
    }

    @Test(.enabled(if: isRoot, "loop devices need root"))
    func `the backup GPT is moved on a disk with sectors of 4096 bytes`() throws {
        let source = try LoopDevice(size: 16 << 20, sectorSize: 4096)
        let target = try LoopDevice(size: 24 << 20, sectorSize: 4096)
        try must("sgdisk", "-n", "1:0:+8M", source.path)
        _ = try Self.sync(source.path, target.path)
        #expect(try Self.problems(target.path).contains("No problems found"))
        #expect(try Self.sync(source.path, target.path).different == 0)
    }

    @Test func `a source without GPT is wrong usage`() throws {
        let scratch = try ScratchDirectory()
        let source = try scratch.sparseFile("source", size: 16 << 20)
        let target = try scratch.sparseFile("target", size: 24 << 20)
        for target in [target, scratch.file("new")] {
            for action in [Replication.Action.synchronize, .dryRun] {
                let error = #expect(throws: ReplicationError.self) {
                    try Self.sync(source, target, action)
                }
                #expect(error?.kind == .invalid)
                #expect(error?.message == "\(source): has no GPT to move the backup of")
            }
        }
        #expect(try must("ls", scratch.path) == "source\ntarget\n")
    }

    @Test func `a GPT that has more bytes of entries than a number holds is damaged`() {
        // 2^32 - 1 entries of 2^32 - 1 bytes each, with the right checksum: a server can send it.
        var header = Array("EFI PART".utf8) + [UInt8](repeating: 0, count: 84)
        (header[12], header[24], header[72]) = (92, 1, 2)
        header.replaceSubrange(80..<88, with: [UInt8](repeating: 0xFF, count: 8))
        header.replaceSubrange(16..<20, with: [0x95, 0x40, 0x27, 0x4E])
        let zeros = [UInt8](repeating: 0, count: 1 << 20)
        var disk = zeros
        disk.replaceSubrange(512..<512 + header.count, with: header)
        let source = MemoryDevice(disk)
        let target = MemoryDevice(zeros + zeros)
        // With sectors of 1 MiB the header would be behind the end.
        for sector in [512, 1 << 20] {
            let error = #expect(throws: ReplicationError.self) {
                try MovedBackup(source, sector: sector, target: target)
            }
            #expect(error?.message == "memory: read GPT: its header is damaged")
        }
    }

    @Test(arguments: [512, 4096, 16384])
    func `a target without room for the backup is refused, and nothing is written`(
        more: Int
    ) throws {
        let scratch = try ScratchDirectory()
        let source = try scratch.sparseFile("source", size: 16 << 20)
        let target = try scratch.sparseFile("target", size: (16 << 20) + more)
        let untouched = try scratch.sparseFile("untouched", size: (16 << 20) + more)
        try must("sgdisk", "-n", "1:0:+8M", source)
        for action in [Replication.Action.synchronize, .dryRun] {
            let error = #expect(throws: ReplicationError.self) {
                try Self.sync(source, target, action)
            }
            #expect(error?.kind == .refused && error?.cause == "size")
            #expect(error?.message.contains("refused: no room for the backup GPT") == true)
        }
        try must("cmp", target, untouched)
    }

    @Test func `a target with just enough room for the backup gets it`() throws {
        let scratch = try ScratchDirectory()
        let source = try scratch.sparseFile("source", size: 16 << 20)
        let target = try scratch.sparseFile("target", size: (16 << 20) + 16384 + 512)
        try must("sgdisk", "-n", "1:0:+8M", source)
        _ = try Self.sync(source, target)
        #expect(try Self.problems(target).contains("No problems found"))
    }

    @Test func `an old array behind the source's end is gone after a run with overwrite`() throws {
        let scratch = try ScratchDirectory()
        let source = try scratch.sparseFile("source", size: 16 << 20)
        let target = try scratch.sparseFile("target", size: 80 << 20)
        try must("mkfs.ext4", "-q", "-F", source)
        try Superblocks.zfs(target, pool: 1, device: 2)
        #expect(throws: ReplicationError.self) { try Self.sync(source, target, moves: false) }
        _ = try Self.sync(source, target, overwrites: true, moves: false)
        #expect(try must("blkid", "-p", "-o", "value", "-s", "TYPE", target).contains("ext4"))
        #expect(try Self.sync(source, target, moves: false).different == 0)
    }
}
