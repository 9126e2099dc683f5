// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// Images that their file system has no room for, and what of a source cannot be read.
@Suite(.blocking, .timeLimit(.minutes(60))) struct ImageRoomTests {
    private let scratch: ScratchDirectory
    private let image: String

    init() throws {
        scratch = try ScratchDirectory()
        image = try scratch.sparseFile("image", size: 4 << 20)
        try fill(image, seed: 1, size: 1 << 20)
    }

    @Test func `a limit of file size is a refusal, and nothing is created`() throws {
        func limited(_ target: String, _ more: String...) throws -> ProgramResult {
            try RunningProgram(
                ["bash", "-c", "ulimit -f 2048; exec \"$@\"", "bash", program] + more
                    + [image, target]
            ).wait()
        }
        let target = scratch.file("target")
        for options in [[], ["--dry-run"]] {
            let result =
                options.isEmpty ? try limited(target) : try limited(target, "--dry-run")
            #expect(result.status == 2, "\(result)")
            #expect(
                result.errors.contains(
                    "refused: it would have 4194304 bytes, and this process may write files of "
                        + "2097152 bytes at most"), "\(result)")
            #expect(!FileManager.default.fileExists(atPath: target))
        }
        let server = try ServeProcess(
            scratch.path + "/:rw", prefix: ["bash", "-c", "ulimit -f 2048; exec \"$@\"", "bash"])
        let served = try blkferry(image, server.url(target))
        #expect(served.status == 2, "\(served)")
        #expect(!FileManager.default.fileExists(atPath: target))
    }

    /// An ext3 of small blocks has files of 16 GiB at most.
    @Test(.enabled(if: isRoot, "mounting needs root"))
    func `a file system's limit of file size is a refusal, for new and old images`() throws {
        let mount = try LoopMount(
            make: ["mkfs.ext4", "-q", "-b", "1024", "-O", "^extent,^64bit,^metadata_csum"])
        let large = try scratch.sparseFile("large", size: 20 << 30)
        let old = "\(mount.path)/old"
        try must("truncate", "--size", "1M", old)
        for target in ["\(mount.path)/new", old] {
            for options in [[], ["--dry-run"]] {
                let result = try RunningProgram([program] + options + [large, target]).wait()
                #expect(result.status == 2, "\(result)")
                #expect(
                    result.errors.contains(
                        "it would have 21474836480 bytes, and its file system takes files of "),
                    "\(result)")
            }
        }
        #expect(!FileManager.default.fileExists(atPath: "\(mount.path)/new"))
        #expect(try FileManager.default.attributesOfItem(atPath: old)[.size] as? Int == 1 << 20)
    }

    @Test(.enabled(if: isRoot, "mounting needs root"))
    func `the free space is checked, and holes of the source need none`() throws {
        let small = try TemporaryFileSystem(size: 2 << 20)
        let sparse = try blkferry(image, small.path + "/sparse")
        #expect(sparse.status == 0, "\(sparse)")
        #expect(!sparse.errors.contains("free"))
        let again = try blkferry(image, small.path + "/sparse")
        #expect(again.status == 0 && !again.errors.contains("free"), "\(again)")
        try fill(image, seed: 2, size: 4 << 20)
        let full = try blkferry(image, small.path + "/full")
        #expect(full.errors.contains("bytes free, and up to 4194304 more may be needed"))
        #expect(full.status == 3)
    }

    @Test func `the figure of bytes read back counts only bytes that were read`() throws {
        let result = try blkferry("--verify", image, scratch.file("target"))
        #expect(result.status == 0)
        #expect(result.output.contains("compared    4194304 bytes"))
        #expect(result.output.contains("read back   1048576 bytes"), "\(result.output)")
    }

    @Test func `verify skips unreadable sectors only with --skip-unreadable`() throws {
        let help = try blkferry("verify", "--help")
        #expect(help.output.contains("--skip-unreadable"))
        let copy = scratch.file("copy")
        try must("cp", image, copy)
        // Nothing is unreadable here: the option changes nothing.
        #expect(try blkferry("verify", "--skip-unreadable", image, copy).status == 0)
        try overwrite(copy, [1], at: 3 << 20)
        #expect(try blkferry("verify", "--skip-unreadable", image, copy).status == 1)
    }
}

/// A disk with bad sectors.
@Suite(
    .enabled(if: SilentDisk.isPossible, "needs root, FUSE and qemu-storage-daemon"), .blocking,
    .timeLimit(.minutes(60)))
struct BadSectorTests {
    @Test func `verify compares the rest of a failing source, and ends with 6 or 1`() throws {
        let scratch = try ScratchDirectory()
        let size = 4 << 20
        let back = try scratch.filledFile("back", size: size, seed: 7)
        let copy = scratch.file("copy")
        try must("cp", back, copy)
        let disk = try BadDisk(on: back, badSector: 2048)
        let failed = try blkferry("verify", disk.path, copy)
        #expect(failed.status == 3)
        #expect(failed.errors.contains("--skip-unreadable compares the rest"))
        let (result, json) = try blkferryJSON("verify", "--skip-unreadable", disk.path, copy)
        #expect(result.status == 6, "\(result)")
        #expect(json.int("different") == 0)
        #expect((json.record("readErrors")?.int("unreadable") ?? 0) >= 512)
        let text = try blkferry("verify", "--skip-unreadable", disk.path, copy)
        #expect(text.output.contains("identical but for unreadable blocks"))
        // What differs only where nothing can be read is not known to differ.
        try overwrite(copy, [0, 1, 2], at: 2048 * 512)
        #expect(try blkferry("verify", "--skip-unreadable", disk.path, copy).status == 6)
        try overwrite(copy, [0, 1, 2], at: 0)
        #expect(try blkferry("verify", "--skip-unreadable", disk.path, copy).status == 1)
        let server = try ServeProcess(disk.path)
        let pulled = try blkferry("verify", "--skip-unreadable", server.url(disk.path), copy)
        #expect(pulled.status == 1, "\(pulled)")
    }

    /// At both ends are the signatures that prove a replica.
    @Test(arguments: [["mkfs.ext4", "-q", "-F"], ["sgdisk", "-n", "1:0:+8M"]], [0, -1])
    func `a second run writes to its own replica of a source with a bad first or last sector`(
        format: [String], sector: Int
    ) throws {
        let scratch = try ScratchDirectory()
        let size = 16 << 20
        let back = try scratch.sparseFile("back", size: size)
        try must(format + [back])
        try fill(back, seed: 7, size: 1 << 20, offset: 4 << 20)
        let disk = try BadDisk(on: back, badSector: sector < 0 ? size / 512 + sector : sector)
        let copy = try scratch.sparseFile("copy", size: size)
        for run in 1...2 {
            let (result, json) = try blkferryJSON("--skip-unreadable", disk.path, copy)
            #expect(result.status == 6, "\(result)")
            #expect((json.record("readErrors")?.int("unreadable") ?? 0) >= 512)
            #expect((json.int("written") == 0) == (run == 2), "\(result)")
        }
        let middle = 4096..<size - 4096
        #expect(
            try [UInt8](contentsOf: copy)[middle] == [UInt8](contentsOf: back)[middle])
        // A file system that was made there in between is not overwritten.
        try must("mkfs.ext4", "-q", "-F", "-L", "precious", copy)
        let refused = try blkferry("--skip-unreadable", disk.path, copy)
        #expect(refused.status == 2 && refused.errors.contains("precious"), "\(refused)")
    }
}
