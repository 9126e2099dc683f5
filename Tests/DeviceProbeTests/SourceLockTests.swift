// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import DeviceProbe
import Glibc
import LinuxIO
import TestSupport
import Testing

/// A source is no target of another run, and a target is no source.
@Suite(.blocking, .timeLimit(.minutes(60)), .enabled(if: isRoot, "loop devices need root"))
struct SourceLockTests {
    private let scratch: ScratchDirectory

    init() throws { scratch = try ScratchDirectory() }

    private func admit(_ path: String, size: Int = 64 * MiB) throws -> AdmittedTarget {
        var policy = GatePolicy()
        policy.overwrite = true
        policy.sizePolicy = .prefix
        return try SafetyGate.admit(path, source: facts(size: size), policy: policy)
    }

    private func isRefused(_ path: String, size: Int = MiB) -> Bool {
        do {
            _ = try admit(path, size: size)
            return false
        } catch {
            return (error as? IOError)?.cause == .locked
        }
    }

    @Test func `a device that is read is no target until it is closed`() throws {
        let device = try LoopDevice(size: 64 * MiB)
        do {
            let source = try openSource(device.path)
            let other = try openSource(device.path)
            #expect(isRefused(device.path))
            withExtendedLifetime((source, other)) {}
        }
        _ = try admit(device.path)
    }

    @Test func `a device that is written is no source, but can be compared`() throws {
        let device = try LoopDevice(size: 64 * MiB)
        let image = try scratch.sparseFile("image", size: 64 * MiB)
        for path in [device.path, image] {
            let target = try admit(path)
            do throws(IOError) {
                _ = try openSource(path)
                Issue.record("opened")
            } catch {
                #expect(error.cause == .locked && error.advice != nil, "\(error)")
            }
            let side = try openSource(path, for: .comparison)
            // By another program, or by a child of this one that has not started its program yet.
            #expect(side.warnings.contains { $0.contains("it is locked by ") })
            withExtendedLifetime((target, side)) {}
        }
    }

    @Test func `a disk is locked with its partitions, a partition with its disk alone`() throws {
        let disk = try PartitionedDisk()
        do {
            let source = try openSource(disk.path)
            #expect(isRefused(disk.first))
            withExtendedLifetime(source) {}
        }
        let source = try openSource(disk.first)
        #expect(isRefused(disk.path))
        let other = try admit(disk.second, size: MiB)
        withExtendedLifetime((source, other)) {}
    }

    @Test func `an image is locked with its loop devices, also with a later loop device`() throws {
        let image = try scratch.sparseFile("image", size: 64 * MiB)
        let first = try LoopDevice(backingFile: image)
        let source = try openSource(image)
        #expect(isRefused(first.path))
        // Two loop devices on one image are refused for another reason.
        let other = try scratch.sparseFile("other", size: 64 * MiB)
        let reader = try openSource(other)
        let later = try LoopDevice(backingFile: other)
        #expect(isRefused(later.path))
        withExtendedLifetime((source, reader)) {}
    }

    @Test func `the file behind a loop device is opened, also if its name is no UTF-8`() throws {
        let image = try scratch.sparseFile("image", size: 64 * MiB)
        let name = "\(scratch.path)/$(printf 'd\\351')"
        let loop = String(
            try must("sh", "-c", "mv \(image) \(name) && losetup --find --show \(name)").dropLast())
        defer { _ = try? must("losetup", "--detach", loop) }
        let (read, written) = (try openSource(loop).warnings, try admit(loop).warnings)
        #expect(!(read + written).contains { $0.contains("cannot be opened here") })
    }

    @Test func `a loop device whose file is gone gets a warning`() throws {
        let image = try scratch.sparseFile("image", size: 64 * MiB)
        let loop = try LoopDevice(backingFile: image)
        #expect(try openSource(loop.path).warnings.isEmpty)
        #expect(unlink(image) == 0)
        let (read, written) = (try openSource(loop.path).warnings, try admit(loop.path).warnings)
        for warnings in [read, written] {
            #expect(warnings.contains { $0.contains("losetup --direct-io=on \(loop.path)") })
        }
    }
}
