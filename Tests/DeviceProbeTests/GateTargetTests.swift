// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import DeviceProbe
import Glibc
import LinuxIO
import SystemPackage
import TestSupport
import Testing

@Suite(.enabled(if: isRoot, "loop devices need root"), .blocking, .timeLimit(.minutes(60)))
struct GateTargetTests {
    @Test func `a read-only device is refused`() throws {
        let loop = try LoopDevice(size: MiB, readOnly: true)
        let no = try refusal(loop.path, source: facts(size: MiB))
        #expect(no.cause == .readOnly)
        #expect(no.reason == "it is read-only")
    }

    @Test func `a device that was made read-only is refused`() throws {
        let loop = try LoopDevice(size: MiB)
        // A loop device stays so when it is detached.
        try must("blockdev", "--setro", loop.path)
        defer { _ = try? must("blockdev", "--setrw", loop.path) }
        #expect(try refusal(loop.path, source: facts(size: MiB)).cause == .readOnly)
    }

    @Test func `an image on a read-only file system is refused and not created`() throws {
        let loop = try LoopDevice(size: 16 * MiB)
        let content = try ScratchDirectory()
        _ = try content.sparseFile("image", size: MiB)
        // A mount to make the image may stay a while, and would be writable.
        try must("mkfs.ext4", "-q", "-F", "-d", content.path, loop.path)
        let mounted = try Mounted(loop.path, options: "ro")
        for name in ["image", "new"] {
            let no = try refusal("\(mounted.point)/\(name)", source: facts(size: MiB))
            #expect(no.cause == .readOnly)
        }
    }

    @Test func `a target that is neither a device nor an image is refused`() throws {
        let scratch = try ScratchDirectory()
        try must("mkfifo", scratch.file("fifo"))
        let kinds = [
            (scratch.path, "a directory"), ("/dev/null", "a character device"),
            (scratch.file("fifo"), "a fifo"),
        ]
        for (path, kind) in kinds {
            let no = try refusal(path, source: facts(size: MiB))
            #expect(no.cause == .wrongKind)
            #expect(no.reason == "it is \(kind)")
            #expect(throws: IOError.self) { try openSource(path) }
        }
        try must("ln", "-s", "nowhere", scratch.file("dangling"))
        #expect(
            try refusal(scratch.file("dangling"), source: facts(size: MiB)).cause == .wrongKind)
    }

    @Test func `no image is created under /dev`() throws {
        let scratch = try ScratchDirectory()
        try must("ln", "-s", "/dev", scratch.file("link"))
        let paths = [
            "/dev/blkferry-typo", "/dev/shm/blkferry-typo", scratch.file("link/blkferry-typo"),
            "/dev/../dev/blkferry-typo",
        ]
        for path in paths {
            for isDryRun in [false, true] {
                let no = try refusal(
                    path, source: facts(size: MiB),
                    policy: GatePolicy(overwrite: true, isDryRun: isDryRun))
                #expect(no.cause == .wrongKind)
                #expect(no.reason.contains("never created under /dev"))
            }
        }
    }

    @Test func `a missing parent directory is named and not created`() throws {
        let scratch = try ScratchDirectory()
        let path = scratch.file("missing/image")
        do throws(IOError) {
            _ = try SafetyGate.admit(path, source: facts(size: MiB), policy: GatePolicy())
            Issue.record("admitted")
        } catch {
            #expect(error.errno == .noSuchFileOrDirectory)
            #expect(
                error.description
                    == "\(path): create: parent directory \(scratch.file("missing")) is missing")
        }
        #expect(fingerprint(scratch.file("missing")) == "missing")
    }

    @Test func `a new image is created empty, private and locked`() throws {
        let scratch = try ScratchDirectory()
        let path = scratch.file("new")
        let target = try SafetyGate.admit(path, source: facts(size: MiB), policy: GatePolicy())
        #expect(target.wasCreated)
        #expect(target.resizeTo == MiB)
        #expect(target.device.geometry.size == 0)
        #expect(try must("stat", "-c", "%a %s", path) == "600 0\n")
        #expect(try refusal(path, source: facts(size: MiB)).cause == .locked)
    }

    @Test func `a dry run creates and resizes nothing`() throws {
        let scratch = try ScratchDirectory()
        let policy = GatePolicy(isDryRun: true)
        let new = try SafetyGate.admit(
            scratch.file("new"), source: facts(size: MiB), policy: policy)
        #expect(new.wasCreated)
        #expect(new.device.geometry.size == MiB)
        #expect(fingerprint(scratch.file("new")) == "missing")
        let image = try scratch.sparseFile("image", size: 5000)
        let existing = try SafetyGate.admit(image, source: facts(size: MiB), policy: policy)
        #expect(existing.resizeTo == MiB)
        #expect(existing.device.geometry.size == MiB)
        #expect(throws: IOError.self) { try existing.device.zero(ByteRange(0, to: 4096)) }
        #expect(try FileStatus(path: image).size == 5000)
        let loop = try LoopDevice(size: MiB)
        let device = try SafetyGate.admit(loop.path, source: facts(size: MiB), policy: policy)
        #expect(throws: IOError.self) { try device.device.zero(ByteRange(0, to: 4096)) }
    }

    @Test func `the sizes of two block devices must be equal`() throws {
        let loop = try LoopDevice(size: 2 * MiB)
        for size in [MiB, 3 * MiB] {
            let no = try refusal(loop.path, source: facts(size: size))
            #expect(no.cause == .size)
            #expect(no.reason == "it has 2097152 bytes, the source \(size)")
        }
        let resize = GatePolicy(sizePolicy: .resize)
        #expect(
            try refusal(loop.path, source: facts(size: MiB), policy: resize).reason
                .hasSuffix("and it cannot be resized"))
        _ = try SafetyGate.admit(loop.path, source: facts(size: 2 * MiB), policy: resize)
    }

    @Test func `a larger target is admitted as a prefix, with a warning for GPT`() throws {
        let disk = try PartitionedDisk()
        let loop = try LoopDevice(size: 80 * MiB)
        let source = try openSource(disk.path).facts
        let prefix = GatePolicy(sizePolicy: .prefix)
        let target = try SafetyGate.admit(loop.path, source: source, policy: prefix)
        #expect(target.warnings.count == 1)
        #expect(target.warnings.first?.contains("backup of the GPT") == true)
        #expect(target.resizeTo == nil)
        let plain = facts(size: 64 * MiB)
        withExtendedLifetime(target) {}
        let small = try LoopDevice(size: MiB)
        #expect(try refusal(small.path, source: plain, policy: prefix).cause == .size)
    }

    @Test func `an image is resized unless the size policy says otherwise`() throws {
        let scratch = try ScratchDirectory()
        let image = try scratch.sparseFile("image", size: 2 * MiB)
        for size in [MiB, 3 * MiB] {
            do {
                let target = try SafetyGate.admit(
                    image, source: facts(size: size), policy: GatePolicy())
                #expect(target.resizeTo == size)
                #expect(target.device.geometry.size == 2 * MiB)
            }
            let no = try refusal(
                image, source: facts(size: size), policy: GatePolicy(sizePolicy: .refuse))
            #expect(no.cause == .size)
        }
        let prefix = GatePolicy(sizePolicy: .prefix)
        let larger = try SafetyGate.admit(image, source: facts(size: MiB), policy: prefix)
        #expect(larger.resizeTo == nil)
        withExtendedLifetime(larger) {}
    }

    @Test(
        .enabled(
            if: readSmallFile("/sys/block/zram0/size") == "0", "needs a zram device of no size"))
    func `a device without a medium fails`() throws {
        // Not a free loop device: claiming it could disturb another test.
        let free = "/dev/zram0"
        for isSource in [true, false] {
            do throws(IOError) {
                if isSource {
                    _ = try openSource(free)
                } else {
                    _ = try SafetyGate.admit(free, source: facts(size: MiB), policy: GatePolicy())
                }
                Issue.record("opened")
            } catch {
                #expect(error.cause == nil && error.reason.hasPrefix("its size is 0"))
            }
        }
    }
}
