// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import DeviceProbe
import LinuxIO
import TestSupport
import Testing

@Suite(.enabled(if: isRoot, "loop devices need root"), .blocking, .timeLimit(.minutes(60)))
struct GateOverlapTests {
    private func overlapRefusal(_ source: String, _ target: String) throws -> IOError {
        let opened = try openSource(source)
        return try refusal(
            target, source: opened.facts,
            policy: GatePolicy(sizePolicy: nil, overwrite: true))
    }

    @Test func `a device is not its own target`() throws {
        let loop = try LoopDevice(size: MiB)
        let no = try overlapRefusal(loop.path, loop.path)
        #expect(no.cause == .overlap)
        #expect(no.reason == "it is the source, \(loop.path)")
    }

    @Test func `an image is not its own target under any name`() throws {
        let scratch = try ScratchDirectory()
        let image = try scratch.sparseFile("image", size: MiB)
        try must("ln", image, scratch.file("hard"))
        try must("ln", "-s", image, scratch.file("soft"))
        for name in ["image", "hard", "soft"] {
            let no = try overlapRefusal(image, scratch.file(name))
            #expect(no.cause == .overlap)
            #expect(no.reason == "it is the source, \(image)")
        }
    }

    @Test func `a disk and its partition overlap both ways`() throws {
        let disk = try PartitionedDisk()
        let name = disk.path.dropFirst("/dev/".count)
        for (source, target) in [(disk.path, disk.first), (disk.first, disk.path)] {
            let no = try overlapRefusal(source, target)
            #expect(no.cause == .overlap)
            #expect(no.reason == "it overlaps the source, \(source): both are on \(name)")
        }
    }

    @Test func `two partitions of a disk do not overlap`() throws {
        let disk = try PartitionedDisk()
        let source = try openSource(disk.first)
        _ = try SafetyGate.admit(disk.second, source: source.facts, policy: GatePolicy())
    }

    @Test func `a loop device and its image overlap both ways`() throws {
        let loop = try LoopDevice(size: MiB)
        #expect(try overlapRefusal(loop.path, loop.backingFile).cause == .overlap)
        let no = try overlapRefusal(loop.backingFile, loop.path)
        #expect(no.cause == .overlap)
        #expect(no.reason.hasSuffix("both are on one image"))
    }

    @Test func `two loop devices on one image overlap only where their bytes do`() throws {
        let scratch = try ScratchDirectory()
        let image = try scratch.sparseFile("image", size: 4 * MiB)
        let whole = try LoopDevice(backingFile: image)
        let tail = try LoopDevice(backingFile: image, offset: 2 * MiB)
        #expect(try overlapRefusal(whole.path, tail.path).cause == .overlap)
        #expect(try overlapRefusal(tail.path, whole.path).cause == .overlap)
    }

    @Test func `a loop device on a partition overlaps its disk and not its neighbour`() throws {
        let disk = try PartitionedDisk()
        let above = try LoopDevice(backingFile: disk.first)
        #expect(try overlapRefusal(disk.path, above.path).cause == .overlap)
        let neighbour = try openSource(disk.second)
        _ = try SafetyGate.admit(above.path, source: neighbour.facts, policy: GatePolicy())
    }

    @Test func `an image on the source's file system is refused before it exists`() throws {
        let loop = try LoopDevice(size: 32 * MiB)
        try makeExt4(loop.path, uuid: freshUUID())
        let mounted = try Mounted(loop.path)
        let image = "\(mounted.point)/image"
        #expect(try overlapRefusal(loop.path, image).cause == .overlap)
        try must("truncate", "-s", "1M", image)
        #expect(try overlapRefusal(loop.path, image).cause == .overlap)
    }

    @Test func `an image on a btrfs subvolume is found on every member`() throws {
        let first = try LoopDevice(size: 128 * MiB)
        let second = try LoopDevice(size: 128 * MiB)
        try must("mkfs.btrfs", "-q", "-f", first.path, second.path)
        let mounted = try Mounted(first.path)
        try must("btrfs", "subvolume", "create", "\(mounted.point)/sub")
        for member in [first, second] {
            let no = try overlapRefusal(member.path, "\(mounted.point)/sub/image")
            #expect(no.cause == .overlap)
        }
    }

    @Test func `two images on one file system do not overlap`() throws {
        let scratch = try ScratchDirectory()
        let source = try openSource(try scratch.sparseFile("one", size: MiB))
        let target = try SafetyGate.admit(
            scratch.file("two"), source: source.facts, policy: GatePolicy())
        #expect(target.wasCreated)
    }
}
