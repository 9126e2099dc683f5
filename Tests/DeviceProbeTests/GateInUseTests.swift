// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import DeviceProbe
import Foundation
import Glibc
import LinuxIO
import TestSupport
import Testing

/// Mounts are read-only here: what a file system writes on its own would look like the gate's doing.
@Suite(.enabled(if: isRoot, "loop devices need root"), .blocking, .timeLimit(.minutes(60)))
struct GateInUseTests {
    @Test func `the refusal of a mounted target names its mount point`() throws {
        let loop = try LoopDevice(size: 32 * MiB)
        try makeExt4(loop.path, uuid: freshUUID())
        let mounted = try Mounted(loop.path, name: "a place", options: "ro")
        let no = try refusal(
            loop.path, source: facts(size: 32 * MiB), policy: GatePolicy(overwrite: true))
        #expect(no.cause == .inUse)
        #expect(no.reason == "it is mounted on \(mounted.point)")
        #expect(no.advice == "Unmount it first: umount \(mounted.point)")
    }

    @Test func `a target that is active swap is refused`() throws {
        let loop = try LoopDevice(size: 16 * MiB)
        let swap = try Swap(loop.path)
        defer { withExtendedLifetime(swap) {} }
        let no = try refusal(
            loop.path, source: facts(size: 16 * MiB), policy: GatePolicy(overwrite: true),
            comparing: Swap.header)
        #expect(no.cause == .inUse)
        #expect(no.reason == "it is in use as swap")
    }

    @Test func `a target that is an active swap file is refused`() throws {
        let scratch = try ScratchDirectory()
        let file = scratch.file("swap")
        try must("dd", "if=/dev/zero", "of=\(file)", "bs=1M", "count=4", "status=none")
        try must("chmod", "600", file)
        let swap = try Swap(file)
        defer { withExtendedLifetime(swap) {} }
        let no = try refusal(
            file, source: facts(size: 4 * MiB), policy: GatePolicy(overwrite: true),
            comparing: Swap.header)
        #expect(no.cause == .inUse)
        #expect(no.reason == "it is in use as swap")
    }

    @Test func `a disk is refused because its partition is mounted`() throws {
        let disk = try PartitionedDisk()
        try makeExt4(disk.second, uuid: freshUUID())
        let mounted = try Mounted(disk.second, options: "ro")
        let no = try refusal(
            disk.path, source: facts(size: 64 * MiB), policy: GatePolicy(overwrite: true))
        let name = disk.second.dropFirst("/dev/".count)
        #expect(no.cause == .inUse)
        #expect(no.reason == "its partition \(name) is mounted on \(mounted.point)")
    }

    @Test func `a partition is refused because its disk is mounted`() throws {
        let disk = try PartitionedDisk()
        // A file system over the table; the kernel keeps its partitions.
        try makeExt4(disk.path, uuid: freshUUID())
        let mounted = try Mounted(disk.path, options: "ro")
        let no = try refusal(
            disk.first, source: facts(size: 16 * MiB), policy: GatePolicy(overwrite: true))
        #expect(no.cause == .inUse)
        #expect(
            no.reason.contains("its disk \(disk.path.dropFirst(5)) is mounted on \(mounted.point)"))
    }

    @Test func `a partition beside a mounted partition is admitted`() throws {
        let disk = try PartitionedDisk()
        try makeExt4(disk.second, uuid: freshUUID())
        let mounted = try Mounted(disk.second, options: "ro")
        defer { withExtendedLifetime(mounted) {} }
        let target = try SafetyGate.admit(
            disk.first, source: facts(size: 16 * MiB), policy: GatePolicy())
        #expect(target.device.geometry.size == 16 * MiB)
    }

    @Test func `every member of a mounted btrfs is refused`() throws {
        let first = try LoopDevice(size: 128 * MiB)
        let second = try LoopDevice(size: 128 * MiB)
        try must("mkfs.btrfs", "-q", "-f", first.path, second.path)
        let mounted = try Mounted(first.path, options: "ro")
        for member in [first, second] {
            let no = try refusal(
                member.path, source: facts(size: 128 * MiB), policy: GatePolicy(overwrite: true))
            #expect(no.reason == "it is mounted on \(mounted.point)")
        }
    }

    @Test func `a device behind a loop device is refused although nobody claims it`() throws {
        let below = try LoopDevice(size: 16 * MiB)
        let above = try LoopDevice(backingFile: below.path)
        let no = try refusal(below.path, source: facts(size: 16 * MiB))
        #expect(no.cause == .inUse)
        #expect(no.reason == "it is behind loop device \(above.path)")
        #expect(no.advice == "Detach it first: losetup -d \(above.path)")
    }

    @Test func `a disk is refused because a loop device stands on its partition`() throws {
        let disk = try PartitionedDisk()
        let above = try LoopDevice(backingFile: disk.first)
        let no = try refusal(
            disk.path, source: facts(size: 64 * MiB), policy: GatePolicy(overwrite: true))
        #expect(no.cause == .inUse)
        #expect(no.reason.contains("behind loop device \(above.path)"))
    }

    @Test func `the refusal of an image behind a loop device names the mount point`() throws {
        let loop = try LoopDevice(size: 32 * MiB)
        try makeExt4(loop.path, uuid: freshUUID())
        let mounted = try Mounted(loop.path, options: "ro")
        let no = try refusal(
            loop.backingFile, source: facts(size: 32 * MiB), policy: GatePolicy(overwrite: true))
        #expect(no.cause == .inUse)
        #expect(
            no.reason
                == "it is behind loop device \(loop.path) (mounted on \(mounted.point))")
    }

    @Test func `the refusal of a locked image names the process`() throws {
        let scratch = try ScratchDirectory()
        let image = try scratch.sparseFile("image", size: MiB)
        let locker = try Locker(image, scratch: scratch)
        defer { withExtendedLifetime(locker) {} }
        let no = try refusal(image, source: facts(size: MiB))
        #expect(no.cause == .locked)
        #expect(no.reason.hasPrefix("it is locked by process "))
        #expect(no.reason.contains("python"))
    }

    @Test func `a second loop device on a mounted image is refused`() throws {
        let first = try LoopDevice(size: 16 * MiB)
        try makeExt4(first.path, uuid: freshUUID())
        let mounted = try Mounted(first.path, options: "ro")
        let second = try LoopDevice(backingFile: first.backingFile)
        let no = try refusal(
            second.path, source: facts(size: 16 * MiB), policy: GatePolicy(overwrite: true))
        #expect(no.cause == .inUse)
        #expect(
            no.reason
                == "it shares its bytes with \(first.path), which is mounted on \(mounted.point)")
    }

    @Test func `a loop device on a mounted device is refused`() throws {
        let below = try LoopDevice(size: 16 * MiB)
        try makeExt4(below.path, uuid: freshUUID())
        let mounted = try Mounted(below.path, options: "ro")
        let above = try LoopDevice(backingFile: below.path)
        let no = try refusal(
            above.path, source: facts(size: 16 * MiB), policy: GatePolicy(overwrite: true))
        #expect(no.cause == .inUse)
        #expect(no.reason.contains("\(below.path), which is mounted on \(mounted.point)"))
    }

    @Test func `a loop device over a mounted partition is refused`() throws {
        let disk = try PartitionedDisk()
        try makeExt4(disk.second, uuid: freshUUID())
        let mounted = try Mounted(disk.second, options: "ro")
        let above = try LoopDevice(backingFile: disk.path)
        let no = try refusal(
            above.path, source: facts(size: 64 * MiB), policy: GatePolicy(overwrite: true))
        #expect(no.reason.contains("\(disk.second), which is mounted on \(mounted.point)"))
    }

    @Test func `a free loop device on a free device is admitted`() throws {
        let below = try LoopDevice(size: MiB)
        let above = try LoopDevice(backingFile: below.path)
        _ = try SafetyGate.admit(above.path, source: facts(size: MiB), policy: GatePolicy())
    }

    @Test func `a partition of a free loop device on a free device is admitted`() throws {
        let below = try LoopDevice(size: 64 * MiB)
        let disk = try PartitionedDisk(
            LoopDevice(backingFile: below.path, partitions: true))
        let admitted = try SafetyGate.admit(
            disk.first, source: facts(size: 16 * MiB), policy: GatePolicy())
        #expect(admitted.device.geometry.size == 16 * MiB)
    }

    @Test func `of three stacked loop devices only the highest is admitted`() throws {
        let lowest = try LoopDevice(size: MiB)
        let middle = try LoopDevice(backingFile: lowest.path)
        let highest = try LoopDevice(backingFile: middle.path)
        _ = try SafetyGate.admit(highest.path, source: facts(size: MiB), policy: GatePolicy())
        for (device, above) in [(middle, highest), (lowest, middle)] {
            let no = try refusal(device.path, source: facts(size: MiB))
            #expect(no.reason.hasPrefix("it is behind loop device \(above.path)"), "\(no.reason)")
        }
        withExtendedLifetime((lowest, middle, highest)) {}
    }

    @Test func `another loop device below a chain of loop devices is refused`() throws {
        let lowest = try LoopDevice(size: MiB)
        let middle = try LoopDevice(backingFile: lowest.path)
        let highest = try LoopDevice(backingFile: middle.path)
        let other = try LoopDevice(backingFile: lowest.path)
        let no = try refusal(highest.path, source: facts(size: MiB))
        #expect(no.cause == .inUse)
        #expect(
            no.reason
                == "it shares its bytes with \(lowest.path), which is behind loop device \(other.path)"
        )
        #expect(no.advice == "Detach it first: losetup -d \(other.path)")
        withExtendedLifetime((middle, highest)) {}
    }

    @Test func `a mounted device below a chain of loop devices is refused`() throws {
        // Each time another chain: a program of another test in a mount namespace of its own has a
        // copy of an unmounted mount until it ends.
        for isLowestMounted in [true, false] {
            let lowest = try LoopDevice(size: 16 * MiB)
            try makeExt4(lowest.path, uuid: freshUUID())
            let middle = try LoopDevice(backingFile: lowest.path)
            let highest = try LoopDevice(backingFile: middle.path)
            let mounted = isLowestMounted ? lowest : middle
            let mount = try Mounted(mounted.path, options: "ro")
            let no = try refusal(
                highest.path, source: facts(size: 16 * MiB), policy: GatePolicy(overwrite: true))
            #expect(no.reason.contains("\(mounted.path), which is mounted on \(mount.point)"))
            withExtendedLifetime((lowest, middle)) {}
        }
    }

    @Test func `an image behind a loop device is found under any of its names`() throws {
        let scratch = try ScratchDirectory()
        // A name that is no UTF-8, and another one for the same file.
        let image = try scratch.sparseFile("image", size: MiB)
        try must("sh", "-c", "ln \(image) \(scratch.path)/$(printf 'd\\351')")
        let loop = try must(
            "sh", "-c", "losetup --find --show \(scratch.path)/$(printf 'd\\351')"
        )
        .trimmingCharacters(in: .whitespacesAndNewlines)
        defer { _ = try? must("losetup", "--detach", loop) }
        let no = try refusal(image, source: facts(size: MiB), policy: GatePolicy(overwrite: true))
        #expect(no.reason.contains("behind loop device \(loop)"))
    }

    @Test func `a disk with a damaged partition table is not empty`() throws {
        let disk = try PartitionedDisk()
        try makeExt4(disk.first, uuid: freshUUID(), label: "precious")
        try must(
            "dd", "if=/dev/zero", "of=\(disk.path)", "bs=512", "count=1", "conv=notrunc,fsync",
            "status=none")
        try must(
            "dd", "if=/dev/zero", "of=\(disk.path)", "bs=512", "seek=1", "count=33",
            "conv=notrunc,fsync", "status=none")
        let no = try refusal(disk.path, source: facts(size: 64 * MiB))
        #expect(no.cause == .signature)
        #expect(no.reason.contains("precious"))
    }

    @Test func `a target locked with flock is refused`() throws {
        let loop = try LoopDevice(size: MiB)
        let scratch = try ScratchDirectory()
        let image = try scratch.sparseFile("image", size: MiB)
        for path in [loop.path, image] {
            let holder = try OwnedDescriptor.open(path, flags: O_RDWR)
            #expect(flock(holder.rawValue, LOCK_EX) == 0)
            #expect(try refusal(path, source: facts(size: MiB)).cause == .locked)
        }
    }

    @Test func `a device of a running QEMU is refused although nobody claims it`() throws {
        let loop = try LoopDevice(size: MiB)
        // The program that QEMU is made of, holding the device as a virtual machine does.
        let qemu = try RunningProgram([
            "qemu-io", "-f", "raw", "-c", "write -P 1 0 512", "-c", "sleep 60000", loop.path,
        ])
        defer { qemu.signal(SIGKILL) }
        // What it writes tells that it has taken its locks.
        while try qemu.isRunning && [UInt8](contentsOf: loop.path, count: 1) != [1] {
            usleep(20_000)
        }
        let wanted = "it is locked by process \(qemu.processID) (qemu-io)"
        var no = try refusal(loop.path, source: facts(size: MiB))
        // A program that another test starts has, until its exec, a copy of every descriptor.
        for _ in 0..<100 where no.reason != wanted {
            usleep(20_000)
            no = try refusal(loop.path, source: facts(size: MiB))
        }
        #expect(no.cause == .locked)
        #expect(no.reason == wanted)
    }

    @Test func `an admitted target is held against a second run`() throws {
        let loop = try LoopDevice(size: MiB)
        let scratch = try ScratchDirectory()
        let image = try scratch.sparseFile("image", size: MiB)
        for (path, cause) in [(loop.path, IOError.Refusal.inUse), (image, .locked)] {
            let target = try SafetyGate.admit(
                path, source: facts(size: MiB), policy: GatePolicy())
            #expect(try refusal(path, source: facts(size: MiB)).cause == cause)
            withExtendedLifetime(target) {}
        }
    }

    @Test func `a device that another program has claimed is refused with its process`() throws {
        let loop = try LoopDevice(size: MiB)
        let scratch = try ScratchDirectory()
        let ready = scratch.file("ready")
        let program = try RunningProgram([
            "python3", "-c",
            """
            import os, sys, time
            os.open(sys.argv[1], os.O_RDWR | os.O_EXCL)
            open(sys.argv[2], 'w').close()
            time.sleep(600)
            """, loop.path, ready,
        ])
        try waitForFile(ready)
        let no = try refusal(loop.path, source: facts(size: MiB))
        #expect(no.cause == .inUse)
        #expect(no.reason == "it is claimed by process \(program.processID) (python3)")
    }

    @Test func `a mount that only a container sees is found`() throws {
        let loop = try LoopDevice(size: 16 * MiB)
        try makeExt4(loop.path, uuid: freshUUID())
        let scratch = try ScratchDirectory()
        try must("mkdir", scratch.file("inside"))
        let program = try RunningProgram([
            "unshare", "-m", "sh", "-c",
            "mount -o ro $0 $1/inside && touch $1/ready && exec sleep 600", loop.path, scratch.path,
        ])
        try waitForFile(scratch.file("ready"))
        // The shell becomes sleep(1) a moment later.
        #expect(becomesTrue { readSmallFile("/proc/\(program.processID)/comm") == "sleep" })
        let no = try refusal(
            loop.path, source: facts(size: 16 * MiB), policy: GatePolicy(overwrite: true))
        #expect(
            no.reason == "it is claimed by a mount on \(scratch.file("inside")) "
                + "that process \(program.processID) (sleep) sees")
    }
}
