// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import Foundation
import Glibc
import TestSupport
import Testing

/// What the time of change of an image tells, on the file systems of this machine's kernel.
@Suite(.blocking, .timeLimit(.minutes(60))) struct CountedFileSystemTests {
    private static let makers = [
        ("ext4", ["mkfs.ext4", "-q"]), ("xfs", ["mkfs.xfs", "-q"]),
        ("btrfs", ["mkfs.btrfs", "-q"]),
    ]

    /// A file of one page that is mapped.
    private struct MappedFile: ~Copyable {
        let memory: UnsafeMutableRawPointer

        init(_ path: String) throws {
            try Data(count: 4096).write(to: URL(fileURLWithPath: path))
            let descriptor = open(path, O_RDWR)
            try #require(descriptor >= 0)
            defer { close(descriptor) }
            let memory = mmap(nil, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0)
            self.memory = try #require(memory)
        }

        deinit { munmap(memory, 4096) }

        func store(_ byte: UInt8) { memory.storeBytes(of: byte, as: UInt8.self) }
    }

    @Test(.enabled(if: isRoot, "mounts need root"), arguments: makers)
    func `a second store to the same page changes the counter`(
        name: String, maker: [String]
    ) throws {
        let supported = try String(contentsOfFile: "/proc/filesystems", encoding: .utf8)
        guard supported.contains(name), let program = maker.first,
            (try? must("sh", "-c", "command -v \(program)")) != nil
        else { return }
        let mount = try LoopMount(size: 320 << 20, make: maker)
        let path = mount.path + "/image"
        let file = try MappedFile(path)
        let image = try ImageFile(path: path, name: path, access: .readWrite)
        file.store(1)
        let first = try #require(image.persistentChangeCounter())
        #expect(image.persistentChangeCounter() == first)
        file.store(2)
        #expect(image.persistentChangeCounter() != first)
    }

    @Test(.enabled(if: isRoot, "mounts need root"))
    func `tmpfs does not report stores to pages, so a file there has no counter`() throws {
        let mount = try TemporaryFileSystem(size: 1 << 20)
        let path = mount.path + "/image"
        let file = try MappedFile(path)
        let image = try ImageFile(path: path, name: path, access: .readWrite)
        file.store(1)
        #expect(image.persistentChangeCounter() == nil)
        #expect(image.reasonForNoCounter == "its file system does not record every write")
    }
}
