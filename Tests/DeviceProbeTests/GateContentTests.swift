// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import DeviceProbe
import LinuxIO
import TestSupport
import Testing

@Suite(.enabled(if: isRoot, "loop devices need root"), .blocking, .timeLimit(.minutes(30)))
struct GateContentTests {
    @Test func aForeignSignatureIsNamedAndKept() throws {
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
    func everyKindOfContentIsRefused(_ command: String, mebibytes: Int) throws {
        let loop = try LoopDevice(size: mebibytes * MiB)
        try must("sh", "-c", "\(command) \(loop.path)")
        let source = facts(size: mebibytes * MiB)
        #expect(try refusal(loop.path, source: source).cause == .signature)
    }

    @Test func overwriteAdmitsWhatWouldBeRefused() throws {
        let loop = try LoopDevice(size: 16 * MiB)
        try makeExt4(loop.path, uuid: freshUUID())
        let before = fingerprint(loop.path)
        let target = try SafetyGate.admit(
            loop.path, source: facts(size: 16 * MiB), policy: GatePolicy(overwrite: true))
        #expect(target.kind == .blockDevice)
        #expect(target.resizeTo == nil)
        #expect(fingerprint(loop.path) == before)
    }

    @Test func aReplicaOfTheSourceIsAdmitted() throws {
        let scratch = try ScratchDirectory()
        let source = try scratch.sparseFile("source", size: 16 * MiB)
        try makeExt4(source, uuid: freshUUID())
        let copy = scratch.file("copy")
        try must("cp", source, copy)
        let opened = try openSource(source)
        let target = try SafetyGate.admit(copy, source: opened.facts, policy: GatePolicy())
        #expect(!target.wasCreated)
    }

    @Test func theSameTypeWithAnotherUUIDIsForeign() throws {
        let scratch = try ScratchDirectory()
        let source = try scratch.sparseFile("source", size: 16 * MiB)
        let other = try scratch.sparseFile("other", size: 16 * MiB)
        try makeExt4(source, uuid: freshUUID())
        try makeExt4(other, uuid: freshUUID())
        let opened = try openSource(source)
        #expect(try refusal(other, source: opened.facts).cause == .signature)
    }

    @Test func aPartitionTableIsRefusedWithWhatIsInItsPartitions() throws {
        let disk = try PartitionedDisk()
        try makeExt4(disk.second, uuid: freshUUID(), label: "root")
        let no = try refusal(disk.path, source: facts(size: 64 * MiB))
        #expect(no.cause == .signature)
        #expect(no.reason.hasPrefix("it holds gpt partition table UUID="))
        #expect(no.reason.contains("with partitions 1 \"first\", 2 ext4 \"root\", which"))
    }

    @Test func contradictoryContentNeedsOverwriteEvenWhereTheSourceHasTheSame() throws {
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
        let no = try refusal(image, source: facts(size: 128 * MiB, content: content))
        #expect(no.cause == .signature)
    }

    @Test func aTargetWhoseStartCannotBeReadNeedsOverwrite() throws {
        let loop = try LoopDevice(size: 4 * MiB)
        // Reads beyond the end of the shrunken file fail with EIO.
        try must("truncate", "-s", "0", loop.backingFile)
        let source = facts(size: 4 * MiB)
        let no = try refusal(loop.path, source: source)
        #expect(no.cause == .signature)
        #expect(no.reason.contains("cannot be told"))
        let target = try SafetyGate.admit(
            loop.path, source: source, policy: GatePolicy(overwrite: true))
        #expect(target.warnings.count == 1)
    }

    @Test func aTableForOtherSectorsIsRefused() throws {
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

    @Test func anImageOfA4KnDiskKeepsItsSectorSize() throws {
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

    @Test func aDamagedFileSystemIsStillSomethingToLose() throws {
        let scratch = try ScratchDirectory()
        let image = try scratch.sparseFile("image", size: 16 * MiB)
        try makeExt4(image, uuid: freshUUID())
        // A byte of the superblock that its checksum covers.
        try must("sh", "-c", "printf X | dd of=\(image) bs=1 seek=1300 conv=notrunc status=none")
        #expect(try refusal(image, source: facts(size: 16 * MiB)).cause == .signature)
    }
}
