// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import Glibc
import TestSupport
import Testing

/// The same as `RunEndTests` of block devices.
@Suite(.blocking, .timeLimit(.minutes(60)), .enabled(if: isRoot, "loop devices need root"))
struct DeviceEndTests {
    private let size = 12 << 20
    private let source: LoopDevice
    private let target: LoopDevice

    init() throws {
        source = try LoopDevice(size: size)
        target = try LoopDevice(size: size)
        try fill(source.path, seed: 1, size: size)
    }

    private func sync(
        _ options: String..., disturbedBy disturb: () throws -> Void
    ) throws -> ProgramResult {
        try blkferry(
            slowly: options + [source.path, target.path], once: { holdsData(target.backingFile) },
            disturb)
    }

    private func grow(_ device: LoopDevice) throws {
        try must("truncate", "-s", "+1M", device.backingFile)
        try must("losetup", "-c", device.path)
    }

    @Test func `a target that has grown is no success`() throws {
        let result = try sync { try grow(target) }
        #expect(result.status == 3, "\(result)")
        #expect(
            result.errors.contains(
                "\(target.path): check at the end: its size has changed from \(size) to"))
    }

    @Test func `a source that has grown is no success`() throws {
        let result = try sync { try grow(source) }
        #expect(result.status == 3, "\(result)")
        #expect(result.errors.contains("\(source.path): check at the end: its size has changed"))
    }

    @Test func `a target that another program writes to is no success`() throws {
        let result = try sync {
            try must("dd", "if=/dev/zero", "of=\(target.path)", "bs=4K", "count=1", "status=none")
        }
        #expect(result.status == 1, "\(result)")
    }

    @Test(arguments: ["discard", "zero range", "node", "memory map", "backing file"])
    func `a target that another program writes to with other calls is no success`(way: String)
        throws
    {
        let scratch = try ScratchDirectory()
        let node = scratch.file("node")
        let result = try sync {
            switch way {
            case "discard": try must("blkdiscard", "-f", "-l", "1M", target.path)
            case "zero range": try must("blkdiscard", "-f", "-z", "-l", "1M", target.path)
            case "node":
                let number = try must("stat", "-c", "%Hr %Lr", target.path)
                try must(["mknod", node, "b"] + number.split { $0.isWhitespace }.map(String.init))
                try must(
                    "dd", "if=/dev/zero", "of=\(node)", "bs=4K", "count=1", "oflag=direct",
                    "status=none")
            case "memory map":
                try must(
                    "python3", "-c",
                    "import mmap; f = open('\(target.path)', 'r+b'); "
                        + "m = mmap.mmap(f.fileno(), 4096); m[0:4] = b'abcd'; m.flush()")
            default:
                try must(
                    "dd", "if=/dev/zero", "of=\(target.backingFile)", "bs=4K", "count=1",
                    "conv=notrunc", "status=none")
            }
        }
        #expect(result.status == 1, "\(result)")
    }

    /// Also where the kernel has yet to write the page back, which would go over the replica.
    @Test(arguments: [false, true])
    func `a disk one of whose partitions is written to is no success`(isCached: Bool) throws {
        try must("sh", "-c", "printf 'start=2048,size=8192\n' | sfdisk -q \(source.path)")
        try must("sh", "-c", "printf 'start=2048,size=8192\n' | sfdisk -q \(target.path)")
        try must("partx", "-a", target.path)
        // The partition would stay for the next user of this loop device.
        defer {
            _ = try? becomesTrue(within: 10) {
                _ = try run("partx", "-d", target.path)
                return !FileManager.default.fileExists(atPath: "\(target.path)p1")
            }
        }
        // The last close of a partition writes its pages back.
        let partition = try FileHandle(
            forUpdating: URL(fileURLWithPath: isCached ? "\(target.path)p1" : "/dev/null"))
        let result = try blkferry(
            slowly: ["--overwrite", source.path, target.path],
            once: { holdsData(target.backingFile) }
        ) {
            if isCached {
                try partition.write(contentsOf: Data(repeating: 0xA5, count: 4096))
            } else {
                try must(
                    "dd", "if=/dev/zero", "of=\(target.path)p1", "bs=4K", "count=1",
                    "oflag=direct", "status=none")
            }
        }
        #expect(result.status == 1, "\(result)")
        try partition.close()
    }

    @Test(arguments: [
        "dd if=/dev/zero bs=4K count=1 conv=notrunc status=none of=", "truncate -s -64K ",
    ])
    func `a backing file written to below a loop device with direct I/O is no success`(
        command: String
    ) throws {
        try must("losetup", "--direct-io=on", target.path)
        let result = try sync { try must("sh", "-c", command + target.backingFile) }
        #expect(result.status == 1 || result.status == 3, "\(result)")
    }

    @Test func `a loop device that was attached to the target's file is no success`() throws {
        var second: LoopDevice?
        let result = try sync {
            let loop = try LoopDevice(backingFile: target.backingFile)
            second = loop
            try must("dd", "if=/dev/zero", "of=\(loop.path)", "bs=4K", "count=1", "conv=fsync")
        }
        #expect(result.status == 1, "\(result)")
        withExtendedLifetime(second) {}
    }

    @Test func `a target whose backing file was removed is no success`() throws {
        let result = try sync { try must("rm", target.backingFile) }
        #expect(result.status == 3, "\(result)")
        #expect(result.errors.contains("the file behind it has no name any more"), "\(result)")
    }

    @Test func `two runs do not write to one file through two loop devices`() throws {
        let second = try LoopDevice(backingFile: target.backingFile)
        var status: Int?
        let result = try sync {
            status = try blkferry(source.path, second.path, "--overwrite", "--wait", "0").status
        }
        #expect(status == 2, "\(result)")
        #expect(try areEqual(source.path, target.path))
    }

    @Test func `a target that other programs only read is a success`() throws {
        let result = try sync { _ = try run("blkid", "-p", target.path) }
        #expect(result.status == 0, "\(result)")
    }

    @Test func `a link to the target that leads elsewhere at the end is no success`() throws {
        let scratch = try ScratchDirectory()
        try must("ln", "-s", target.path, scratch.file("link"))
        let result = try blkferry(
            slowly: [source.path, scratch.file("link")],
            once: { holdsData(target.backingFile) }
        ) { try must("ln", "-sfn", source.path, scratch.file("link")) }
        #expect(result.status == 3, "\(result)")
        #expect(result.errors.contains("another file or device has that name now"))
    }

    @Test func `a server checks its device again at the end`() throws {
        let server = try ServeProcess("\(target.path):rw")
        let result = try blkferry(
            slowly: [source.path, server.url(target.path)],
            once: { holdsData(target.backingFile) }
        ) { try grow(target) }
        #expect(result.status == 3, "\(result)")
        #expect(result.errors.contains("\(server.url(target.path)): check at the end: "))
    }

    @Test func `two runs in opposite directions do not both continue`() throws {
        var status: Int?
        let result = try sync {
            status = try blkferry(target.path, source.path, "--overwrite").status
        }
        #expect(result.status == 0 && status == 2, "\(result)")
        #expect(try areEqual(source.path, target.path))
    }

    @Test func `standard output goes neither to the target nor to its backing file`() throws {
        for file in [target.path, target.backingFile] {
            let result = try run(
                "sh", "-c", "exec \(program) \(source.path) \(target.path) 1<> \(file)")
            #expect(result.status == 2, "\(result)")
            #expect(result.errors.contains("it is where standard output goes"), "\(result)")
        }
    }

    /// Small writes are first tried together with io_uring(7), which containers forbid.
    @Test func `a small write of another program is noticed without io_uring as well`() throws {
        try must("cp", source.backingFile, target.backingFile)
        try must("losetup", "-c", target.path)
        for index in stride(from: 0, to: size / 4096, by: 2) {
            try fill(target.path, seed: 9, size: 4096, offset: index * 4096)
        }
        let scratch = try ScratchDirectory()
        let node = scratch.file("node")
        let number = try must("stat", "-c", "%Hr %Lr", target.path)
        try must(["mknod", node, "b"] + number.split { $0.isWhitespace }.map(String.init))
        let wanted = try [UInt8](contentsOf: source.path, count: 4096)
        let run = try RunningProgram([
            "strace", "-D", "-f", "-o", "/dev/null", "-e", "trace=io_uring_setup,pwrite64", "-e",
            "inject=io_uring_setup:error=ENOSYS", "-e", "inject=pwrite64:delay_enter=10000",
            program, "-c", "1", source.path, target.path,
        ])
        while try run.isRunning && [UInt8](contentsOf: target.path, count: 4096) != wanted {
            usleep(2_000)
        }
        try must(
            "dd", "if=/dev/zero", "of=\(node)", "bs=32K", "count=1", "oflag=direct", "status=none")
        let result = try run.wait()
        #expect(result.status == 1, "\(result)")
        #expect(try !areEqual(source.path, target.path))
    }
}
