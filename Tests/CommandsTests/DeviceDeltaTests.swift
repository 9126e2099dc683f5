// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// `diff` and `apply` between images.
@Suite(.blocking, .enabled(if: isRoot, "loop devices need root"), .timeLimit(.minutes(60)))
struct DeviceDeltaTests {
    private let size = 8 << 20

    @Test(arguments: [512, 4096]) func `a delta is applied to a block device`(sector: Int) throws {
        let scratch = try ScratchDirectory()
        let base = try LoopDevice(size: size)
        let result = try LoopDevice(size: size)
        let target = try LoopDevice(size: size, sectorSize: sector)
        try fill(base.path, seed: 1, size: size)
        try must("cp", base.path, target.path)
        try must("cp", base.path, result.path)
        try fill(result.path, seed: 2, size: 9 * 512, offset: 3 * 512)
        try fill(result.path, seed: 3, size: 70000, offset: size - 70000)
        let delta = scratch.file("delta")
        // Blocks that are smaller than the sectors of the target.
        let made = try blkferry("diff", "-b", "512", "-o", delta, result.path, base.path)
        #expect(made.status == 0, "\(made)")
        let applied = try blkferry("apply", "--verify", delta, target.path)
        #expect(applied.status == 0, "\(applied)")
        #expect(try areEqual(result.path, target.path))
        #expect(try blkferry("apply", delta, target.path).output.contains("nothing was written"))
    }

    @Test func `a target in use, and a delta on its target, are refused`() throws {
        let scratch = try ScratchDirectory()
        let image = try scratch.sparseFile("image", size: size)
        let other = try scratch.sparseFile("other", size: size)
        try must("mkfs.ext4", "-q", "-F", image)
        let target = try LoopDevice(size: size)
        try must("cp", image, target.path)
        let delta = scratch.file("delta")
        #expect(try blkferry("diff", "-o", delta, other, image).status == 0)
        let mount = scratch.file("mount")
        try must("mkdir", mount)
        try must("mount", target.path, mount)
        defer { _ = try? must("umount", mount) }
        let busy = try blkferry("apply", delta, target.path)
        #expect(busy.status == 2 && busy.errors.contains("mounted"), "\(busy)")
        let inside = try blkferry("diff", "-o", "\(mount)/delta", other, target.path)
        #expect(inside.status == 2 && inside.errors.contains("which is read"), "\(inside)")
    }

    @Test func `a device that is larger than the result takes --size-policy prefix`() throws {
        let scratch = try ScratchDirectory()
        let base = try scratch.filledFile("base", size: size, seed: 1)
        let result = try scratch.filledFile("result", size: size, seed: 2)
        let target = try LoopDevice(size: size + (1 << 20))
        try fill(target.path, seed: 1, size: size)
        try fill(target.path, seed: 9, size: 1 << 20, offset: size)
        let delta = scratch.file("delta")
        #expect(try blkferry("diff", "-o", delta, result, base).status == 0)
        #expect(try blkferry("apply", delta, target.path).status == 2)
        let applied = try blkferry("apply", "--size-policy", "prefix", delta, target.path)
        #expect(applied.status == 0, "\(applied)")
        #expect(try run("cmp", "-n", "\(size)", result, target.path).status == 0)
    }
}
