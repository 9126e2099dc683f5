// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import CLinuxBlock
import DeviceProbe
import Glibc
import LinuxIO
import SystemPackage
import TestSupport
import Testing

@Suite(.enabled(if: isRoot, "loop devices need root"), .blocking, .timeLimit(.minutes(60)))
struct SourceTests {
    @Test func `a missing source fails with ENOENT`() throws {
        do throws(IOError) {
            _ = try openSource("/nowhere/at all")
            Issue.record("opened")
        } catch {
            #expect(error.errno == .noSuchFileOrDirectory)
        }
    }

    @Test func `an image larger than any device is neither source nor target`() throws {
        let scratch = try ScratchDirectory()
        // A file system that lets it have that size.
        let directory = scratch.file("large")
        try must("mkdir", directory)
        try must("mount", "-t", "tmpfs", "none", directory)
        defer { _ = try? run("umount", "--lazy", directory) }
        let image = "\(directory)/image"
        try must("truncate", "-s", "\(Int.max)", image)
        let error = #expect(throws: IOError.self) { try openSource(image) }
        #expect(error?.description.contains("are the most that blkferry copies") == true)
        #expect(throws: IOError.self) {
            try SafetyGate.admit(
                image, source: facts(size: MiB), policy: GatePolicy(sizePolicy: .prefix))
        }
    }

    @Test func `an image locked by a writer is no source but is compared with a warning`() throws {
        let scratch = try ScratchDirectory()
        let image = try scratch.sparseFile("image", size: MiB)
        #expect(try openSource(image).warnings.isEmpty)
        let locker = try Locker(image, scratch: scratch)
        #expect(throws: IOError.self) { try openSource(image) }
        #expect(try openSource(image, for: .comparison).warnings.count == 1)
        withExtendedLifetime(locker) {}
    }

    @Test func `both sides of a comparison may be the same image`() throws {
        let scratch = try ScratchDirectory()
        let image = try scratch.sparseFile("image", size: MiB)
        let one = try openSource(image)
        let two = try openSource(image)
        #expect(one.warnings + two.warnings == [])
        withExtendedLifetime(one) {}
    }

    @Test func `a mounted source is opened with a warning`() throws {
        let loop = try LoopDevice(size: 16 * MiB)
        try makeExt4(loop.path, uuid: freshUUID())
        let mounted = try Mounted(loop.path)
        let warnings = try openSource(loop.path).warnings
        #expect(warnings == ["\(loop.path): it is mounted on \(mounted.point) and may change"])
    }

    @Test func `dirty pages of a source are written back before it is read`() throws {
        let loop = try LoopDevice(size: 16 * MiB)
        try must("dd", "if=/dev/urandom", "of=\(loop.path)", "bs=1M", "count=8", "status=none")
        let source = try openSource(loop.path)
        let before = source.device.changeCounter()
        let buffer = AlignedBuffer(count: 8 * MiB)
        try source.device.read(into: buffer.bytes, at: 0)
        try must("sync", "-f", loop.backingFile)
        #expect(source.device.changeCounter() == before)
    }

    @Test func `a source whose start cannot be read is still opened`() throws {
        let loop = try LoopDevice(size: 4 * MiB)
        try must("truncate", "-s", "0", loop.backingFile)
        let source = try openSource(loop.path)
        guard case .unreadable = source.facts.content else {
            Issue.record("\(source.facts.content)")
            return
        }
    }

    @Test(
        .enabled(
            if: readSmallFile("/sys/block/vda/queue/rotational") == "1",
            "needs a machine on a virtio disk that says that it rotates"))
    func `a virtio disk is not rotational, whatever it says`() throws {
        let loop = try LoopDevice(size: MiB)
        #expect(try !openSource(loop.path).isRotational)
        #expect(try !openSource(loop.backingFile).isRotational)
    }

    @Test(arguments: [true, false])
    func `probing leaves the page cache as it was`(ofDevice: Bool) throws {
        let loop = try LoopDevice(size: 64 * MiB)
        let scratch = try ScratchDirectory()
        let copy = scratch.file("image")
        try makeExt4(loop.path, uuid: freshUUID())
        try must("cp", loop.path, copy)
        let path = ofDevice ? loop.path : copy
        let held = try OwnedDescriptor.open(path, flags: O_RDWR)
        guard try cachedPages(held) != nil else { return }  // a kernel before 6.5
        let buffer = AlignedBuffer(count: 4096)
        let holds = try holdsUndisturbed {
            try held.synchronizeData()
            held.dropCachedPages()
            let empty = try cachedPages(held)
            _ = try openSource(path)
            let stillEmpty = try cachedPages(held)
            // Another program has cached some pages of the head, the tail and the middle.
            for offset in [0, 1 << 20, 32 << 20, 63 << 20] {
                _ = try held.readOnce(into: buffer.bytes, at: offset)
            }
            let some = try cachedPages(held)
            _ = try openSource(path)
            let target = try SafetyGate.admit(
                path, source: facts(size: 64 * MiB), policy: GatePolicy(overwrite: true))
            let stillSome = try cachedPages(held)
            withExtendedLifetime(target) {}
            return empty == 0 && stillEmpty == 0 && some ?? 0 > 0 && stillSome == some
        }
        #expect(holds)
    }

    @Test func `probing reads both ends of a device with few requests`() throws {
        let loop = try LoopDevice(size: 64 * MiB)
        let statistics = "/sys/block/\(loop.path.dropFirst("/dev/".count))/stat"
        func requests() throws -> Int {
            // The first number counts the read requests that the device has served.
            let text = try #require(readSmallFile(statistics))
            return try #require(text.split(separator: " ").first.flatMap { Int($0) })
        }
        let holds = try holdsUndisturbed {
            let before = try requests()
            _ = try openSource(loop.path)
            let served = try requests() - before
            // In the order of libblkid there are about 48.
            return served > 0 && served <= 24
        }
        #expect(holds)
    }
}

/// Pages of the whole file that are cached; `nil` where the kernel cannot tell.
private func cachedPages(_ file: borrowing OwnedDescriptor) throws -> UInt64? {
    var pages: UInt64 = 0
    return clb_cached_pages(file.rawValue, 0, 0, &pages) == 0 ? pages : nil
}
