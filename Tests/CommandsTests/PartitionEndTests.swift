// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// A loop device with a first partition of a chosen size and a second one of 2 MiB.
final class DiskWithPartitions {
    let disk: LoopDevice
    var first: String { "\(disk.path)p1" }
    var second: String { "\(disk.path)p2" }

    /// - Parameter size: of the first partition in bytes, a multiple of 1 MiB.
    init(size: Int) throws {
        disk = try LoopDevice(size: size + (4 << 20), partitions: true)
        let sectors = size / 512
        try must(
            "sfdisk", "-q", disk.path,
            input: "start=2048,size=\(sectors)\nstart=\(2048 + sectors),size=4096\n")
        try must("partx", "--update", disk.path)
    }

    deinit { _ = try? run("partx", "-d", disk.path) }

    /// Writes 4 KiB to the start of the first partition through the device file of the disk or of a
    /// loop device on it.
    func overwriteFirst(through path: String) throws {
        try must(
            "dd", "if=/dev/zero", "of=\(path)", "bs=4K", "seek=256", "count=1", "oflag=direct",
            "conv=notrunc,nocreat", "status=none")
    }
}

/// The same as `DeviceEndTests` of partitions whose disk another program writes to.
@Suite(.blocking, .timeLimit(.minutes(60)), .enabled(if: isRoot, "loop devices need root"))
struct PartitionEndTests {
    private let size = 12 << 20
    private let scratch: ScratchDirectory
    private let disk: DiskWithPartitions

    init() throws {
        scratch = try ScratchDirectory()
        disk = try DiskWithPartitions(size: size)
    }

    private func sync(
        isServed: Bool = false, disturbedBy disturb: () throws -> Void
    ) throws -> ProgramResult {
        let source = try scratch.filledFile("source", size: size, seed: 1)
        let server = try isServed ? ServeProcess("\(disk.first):rw") : nil
        defer { withExtendedLifetime(server) {} }
        return try blkferry(
            slowly: [source, server?.url(disk.first) ?? disk.first],
            once: { holdsData(disk.disk.backingFile) }, disturb)
    }

    /// Also where the kernel has yet to write the page back, which would go over the replica.
    @Test(arguments: ["direct", "held", "loop"], [false, true])
    func `a partition whose disk is written to is no success`(way: String, isServed: Bool) throws {
        // The last close of a disk writes its pages back.
        let held = try FileHandle(
            forUpdating: URL(fileURLWithPath: way == "held" ? disk.disk.path : "/dev/null"))
        let result = try sync(isServed: isServed) {
            switch way {
            case "direct": try disk.overwriteFirst(through: disk.disk.path)
            case "held":
                try held.seek(toOffset: 1 << 20)
                try held.write(contentsOf: Data(repeating: 0xA5, count: 4096))
            default:
                let loop = try LoopDevice(backingFile: disk.disk.path)
                try disk.overwriteFirst(through: loop.path)
                withExtendedLifetime(loop) {}
            }
        }
        #expect(result.status == 1, "\(result)")
        #expect(result.errors.contains("another program wrote to it during the run"), "\(result)")
        try held.close()
    }

    @Test(arguments: [false, true])
    func `a partition beside one that is written to is a success`(isServed: Bool) throws {
        let result = try sync(isServed: isServed) {
            try must(
                "dd", "if=/dev/urandom", "of=\(disk.second)", "bs=64K", "count=16",
                "oflag=direct", "status=none")
            try must("blkdiscard", "-f", "-l", "64K", disk.second)
        }
        #expect(result.status == 0, "\(result)")
    }

    @Test(arguments: [false, true], [false, true])
    func `a write to the source through its disk gives a warning`(isServed: Bool, isDisk: Bool)
        throws
    {
        try fill(disk.first, seed: 1, size: size)
        let server = try isServed ? ServeProcess(disk.first, prefix: slowReads(by: 8)) : nil
        defer { withExtendedLifetime(server) {} }
        let target = scratch.file("target")
        let result = try blkferry(
            slowly: ["--json", server?.url(disk.first) ?? disk.first, target],
            once: { holdsData(target) }
        ) {
            if isDisk {
                try disk.overwriteFirst(through: disk.disk.path)
            } else {
                try must(
                    "dd", "if=/dev/zero", "of=\(disk.second)", "bs=4K", "count=1",
                    "oflag=direct", "status=none")
            }
        }
        #expect(result.status == 0, "\(result)")
        #expect(result.output.contains("\"sourceChanged\":\(isDisk)"), "\(result)")
    }
}
