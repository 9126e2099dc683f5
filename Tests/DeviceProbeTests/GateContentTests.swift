// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import DeviceProbe
import LinuxIO
import TestSupport
import Testing

@Suite(.enabled(if: isRoot, "loop devices need root"), .blocking, .timeLimit(.minutes(60)))
struct GateContentTests {
    @Test func `a refusal names a foreign signature and keeps it`() throws {
        let loop = try LoopDevice(size: 16 * MiB)
        let uuid = freshUUID()
        try makeExt4(loop.path, uuid: uuid, label: "precious")
        let no = try refusal(loop.path, source: facts(size: 16 * MiB))
        #expect(no.cause == .signature)
        #expect(no.reason == "it holds ext4 \"precious\" UUID=\(uuid), which would be lost")
        #expect(no.advice?.contains("--overwrite") == true)
    }

    @Test(arguments: [
        ("mkfs.xfs -q", 320), ("mkfs.btrfs -q", 128), ("mkfs.vfat", 4), ("mkswap -q", 4),
    ])
    func `a target with content of any kind is refused`(_ command: String, mebibytes: Int) throws {
        let loop = try LoopDevice(size: mebibytes * MiB)
        try must("sh", "-c", "\(command) \(loop.path)")
        let source = facts(size: mebibytes * MiB)
        #expect(try refusal(loop.path, source: source).cause == .signature)
    }

    @Test func `--overwrite admits a target that would be refused`() throws {
        let loop = try LoopDevice(size: 16 * MiB)
        try makeExt4(loop.path, uuid: freshUUID())
        let before = fingerprint(loop.path)
        let target = try SafetyGate.admit(
            loop.path, source: facts(size: 16 * MiB), policy: GatePolicy(overwrite: true))
        #expect(target.kind == .blockDevice)
        #expect(target.resizeTo == nil)
        #expect(fingerprint(loop.path) == before)
    }

    @Test func `a replica of the source is admitted`() throws {
        let scratch = try ScratchDirectory()
        let source = try scratch.sparseFile("source", size: 16 * MiB)
        try makeExt4(source, uuid: freshUUID())
        let copy = scratch.file("copy")
        try must("cp", source, copy)
        let opened = try openSource(source)
        let target = try SafetyGate.admit(copy, source: opened.facts, policy: GatePolicy())
        #expect(!target.wasCreated)
    }

    @Test func `a signature of the same type with another UUID is foreign`() throws {
        let scratch = try ScratchDirectory()
        let source = try scratch.sparseFile("source", size: 16 * MiB)
        let other = try scratch.sparseFile("other", size: 16 * MiB)
        try makeExt4(source, uuid: freshUUID())
        try makeExt4(other, uuid: freshUUID())
        let opened = try openSource(source)
        #expect(try refusal(other, source: opened.facts).cause == .signature)
    }

    @Test func `the refusal of a partition table names what its partitions contain`() throws {
        let disk = try PartitionedDisk()
        try makeExt4(disk.second, uuid: freshUUID(), label: "root")
        let no = try refusal(disk.path, source: facts(size: 64 * MiB))
        #expect(no.cause == .signature)
        #expect(no.reason.hasPrefix("it holds gpt partition table UUID="))
        #expect(no.reason.contains("with partitions 1 \"first\", 2 ext4 \"root\", which"))
    }

    @Test func `contradictory content is a replica only where the source has all of it`() throws {
        let scratch = try ScratchDirectory()
        let image = try scratch.sparseFile("image", size: 128 * MiB)
        // Two file systems whose superblocks do not overwrite each other.
        try must("mkfs.btrfs", "-q", image)
        try must("sh", "-c", "mkfs.ext4 -q -F \(scratch.file("x")) 16M")
        try must(
            "dd", "if=\(scratch.file("x"))", "of=\(image)", "bs=1k", "skip=1", "seek=1", "count=2",
            "conv=notrunc", "status=none")
        let content = try openSource(image).facts.content
        guard case .ambiguous(let found) = content else {
            Issue.record("\(content)")
            return
        }
        #expect(Set(found.map(\.type)) == ["btrfs", "ext4"])
        _ = try SafetyGate.admit(
            image, source: facts(size: 128 * MiB, content: content), policy: GatePolicy())
        let less = facts(size: 128 * MiB, content: .signatures(Array(found.prefix(1))))
        let no = try refusal(image, source: less)
        #expect(no.cause == .signature)
        #expect(no.reason.contains(found[1].description))
    }

    @Test func `a target whose start cannot be read needs --overwrite`() throws {
        let loop = try LoopDevice(size: 4 * MiB)
        // Reads beyond the end of the shrunken file fail with EIO.
        try must("truncate", "-s", "0", loop.backingFile)
        let source = facts(size: 4 * MiB)
        let no = try refusal(loop.path, source: source)
        #expect(no.cause == .signature)
        #expect(no.reason.contains("cannot be determined"))
        let target = try SafetyGate.admit(
            loop.path, source: source, policy: GatePolicy(overwrite: true))
        #expect(target.warnings.count == 1)
    }

    @Test func `a partition table for another sector size is refused`() throws {
        let source = try PartitionedDisk()
        let opened = try openSource(source.path)
        #expect(opened.facts.content.partitionTable?.sectorSize == 512)
        let target = try LoopDevice(size: 64 * MiB, sectorSize: 4096)
        let no = try refusal(target.path, source: opened.facts)
        #expect(no.cause == .sectorSize)
        let admitted = try SafetyGate.admit(
            target.path, source: opened.facts, policy: GatePolicy(overwrite: true))
        #expect(admitted.warnings.count == 1)
    }

    @Test func `an image of a 4Kn disk keeps its sector size`() throws {
        let disk = try PartitionedDisk(sectorSize: 4096)
        let opened = try openSource(disk.loop.backingFile)
        let table = try #require(opened.facts.content.partitionTable)
        #expect(table.type == "gpt")
        #expect(table.sectorSize == 4096)
        #expect(table.partitions.map(\.name) == ["first", "second part"])
        #expect(table.partitions.map(\.range.length) == [16 * MiB, 16 * MiB])
        #expect(table == (try openSource(disk.path)).facts.content.partitionTable)
        let wrong = try LoopDevice(size: 64 * MiB)
        #expect(try refusal(wrong.path, source: opened.facts).cause == .sectorSize)
        let right = try LoopDevice(size: 64 * MiB, sectorSize: 4096)
        _ = try SafetyGate.admit(right.path, source: opened.facts, policy: GatePolicy())
    }

    @Test func `a damaged file system is still something to lose`() throws {
        let scratch = try ScratchDirectory()
        let image = try scratch.sparseFile("image", size: 16 * MiB)
        try makeExt4(image, uuid: freshUUID())
        // A byte of the superblock that its checksum covers.
        try must("sh", "-c", "printf X | dd of=\(image) bs=1 seek=1300 conv=notrunc status=none")
        #expect(try refusal(image, source: facts(size: 16 * MiB)).cause == .signature)
    }

    /// The source has a bad sector at its start, and many a mkfs(8) leaves the end of a disk alone.
    @Test func `the backup of a GPT proves a replica alone, and nothing beside a file system`() {
        let end = 16 * MiB - 512
        let table = Signature(
            usage: .partitionTable, type: "gpt", uuid: "one", places: [512, end])
        let backup = Signature(usage: .partitionTable, type: "gpt", uuid: "one", places: [end])
        let other = Signature(usage: .filesystem, type: "ext4", uuid: "two", places: [1080])
        for found in [table, backup] {
            let source = Content.partial(
                .init([found], missing: [ByteRange(0, to: 512)], reason: "EIO"))
            #expect(Content.signatures([found]).isReplica(of: source))
            #expect(Content.signatures([backup]).isReplica(of: source))
            #expect(!Content.ambiguous([other, backup]).isReplica(of: source))
            #expect(!Content.signatures([other]).isReplica(of: source))
        }
    }
}
