// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// A loop device whose store fails when the page cache is written back.
@Suite(.blocking, .timeLimit(.minutes(60)), .enabled(if: isRoot, "loop devices need root"))
struct LateFailureTests {
    private let size = 32 << 20
    private let store: TemporaryFileSystem
    private let disk: LoopDevice
    private let mount: ScratchMount
    private let source: LoopDevice
    private let target: LoopDevice
    private let backing: String

    /// Undoes a mount.
    private final class ScratchMount: Sendable {
        let path: String
        private let scratch: ScratchDirectory

        init(_ device: String) throws {
            scratch = try ScratchDirectory()
            path = scratch.path
            try must("mount", device, path)
        }

        deinit { _ = try? must("umount", "--lazy", path) }
    }

    init() throws {
        // The disk is larger than what it is stored in.
        store = try TemporaryFileSystem(size: 16 << 20)
        let file = "\(store.path)/disk"
        try must("truncate", "-s", "64M", file)
        disk = try LoopDevice(backingFile: file)
        try must(
            "mkfs.ext4", "-q", "-O", "^has_journal", "-E", "lazy_itable_init=0,nodiscard", disk.path
        )
        mount = try ScratchMount(disk.path)
        backing = "\(mount.path)/target"
        try must("truncate", "-s", "\(size)", backing)
        target = try LoopDevice(backingFile: backing)
        source = try LoopDevice(size: size)
        try fill(source.path, seed: 1, size: size)
        let first = try blkferry(source.path, target.path)
        #expect(first.status == 3, "\(first)")
        #expect(first.errors.contains("flush"), "\(first)")
        #expect(first.errors.contains("--whole-file"), "\(first)")
        // Another disk was added.
        try must("mount", "-o", "remount,size=256M", store.path)
    }

    /// Whether the target holds the source where it counts.
    private func isReplica() throws -> Bool {
        // It may still tell of the failure.
        _ = try run("sync", "-f", backing)
        try must("dd", "of=\(backing)", "oflag=nocache", "conv=notrunc,fdatasync", "count=0")
        return try areEqual(source.path, backing)
    }

    @Test func `after a late failure the next run compares the bytes on the medium`() throws {
        let second = try blkferry("--verify", source.path, target.path)
        #expect(second.status == 0, "\(second)")
        #expect(try isReplica())
    }

    @Test func `after a late failure verify compares the bytes on the medium`() throws {
        #expect(try blkferry("verify", source.path, target.path).status == 1)
    }

    @Test func `a whole copy after a late failure is on the medium`() throws {
        #expect(try blkferry("--whole-file", source.path, target.path).status == 0)
        #expect(try isReplica())
    }
}

/// Partitions that the kernel cannot forget.
@Suite(.blocking, .timeLimit(.minutes(60)), .enabled(if: isRoot, "loop devices need root"))
struct BusyPartitionTests {
    private let scratch: ScratchDirectory
    private let source: String
    private let target: LoopDevice
    private let size = 64 << 20

    init() throws {
        scratch = try ScratchDirectory()
        source = try scratch.sparseFile("source", size: size)
        try must("sgdisk", "-n", "1:2048:+40M", source)
        target = try LoopDevice(size: size, partitions: true)
        try must("sgdisk", "-n", "1:2048:+10M", "-n", "2:0:+20M", target.path)
        try must("partx", "-a", target.path)
    }

    private func opener(_ path: String) throws -> RunningProgram {
        let ready = scratch.file("ready")
        let program = try RunningProgram([
            "sh", "-c", "exec <\(path); touch \(ready); exec sleep 600",
        ])
        try #require(becomesTrue { FileManager.default.fileExists(atPath: ready) })
        return program
    }

    @Test(arguments: [false, true])
    func `the program that keeps a partition open is named until it ends`(isServed: Bool) throws {
        defer { _ = try? run("partx", "-d", target.path) }
        let server = isServed ? try ServeProcess("\(target.path):rw") : nil
        let name = server?.url(target.path) ?? target.path
        do {
            let holder = try opener("\(target.path)p2")
            for options in [["--overwrite"], []] {
                let result = try RunningProgram([program] + options + [source, name]).wait()
                #expect(result.status == 0, "\(result)")
                let partition = target.path.dropFirst("/dev/".count) + "p2"
                #expect(result.errors.contains("\(partition) is open in process"), "\(result)")
                #expect(result.errors.contains("partprobe \(target.path)"))
            }
            withExtendedLifetime(holder) {}
        }
        // A program that looks at all devices may have a partition open as well.
        let holds = try holdsUndisturbed {
            let result = try blkferry(source, name)
            #expect(result.status == 0, "\(result)")
            return !result.errors.contains("partprobe")
        }
        #expect(holds)
    }
}
