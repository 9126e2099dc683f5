// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// Holes of images with data in the page cache that is not yet on the medium: the file system knows of
/// no block there, and still it is data.
@Suite(.enabled(if: isRoot, "mounting needs root"), .blocking, .timeLimit(.minutes(60)))
struct DirtyHoleTests {
    /// Commands that make a file system.
    private static let every = [
        "mkfs.ext4 -q", "mkfs.xfs -q", "mkfs.btrfs -q", "mkfs.ext4 -q -O ^extent,^64bit",
    ]
    /// Those that this kernel mounts.
    static let available = every.filter { (try? mount($0)) != nil }

    private static func mount(_ make: String) throws -> LoopMount {
        // XFS has 300 MiB at least.
        try LoopMount(size: 320 << 20, make: make.split(separator: " ").map(String.init))
    }

    @Test(.enabled(if: available == every, "some file systems cannot be mounted: left out"))
    func `ext4, XFS and btrfs are among those tested`() { #expect(Self.available.count == 4) }

    /// Writes into holes of its first argument, buffered and by mmap, and writes nothing back; of one
    /// part the blocks are reserved already.
    private static let writer = """
        import mmap, os, random, sys
        random.seed(int(sys.argv[2]))
        file = os.open(sys.argv[1], os.O_RDWR)
        size = os.fstat(file).st_size
        os.posix_fallocate(file, size // 2, 4 << 20)
        for _ in range(60):
            offset = random.randrange(size - 70000)
            os.pwrite(file, random.randbytes(random.choice([1, 511, 4096, 65537])), offset)
        memory = mmap.mmap(file, size)
        for _ in range(40):
            offset = random.randrange(size - 8192)
            memory[offset:offset + 300] = random.randbytes(300)
        """

    private func scribble(_ path: String, seed: Int) throws {
        try must("python3", "-c", Self.writer, path, "\(seed)")
    }

    /// A file system with an image of holes alone.
    private func image(_ make: String) throws -> (mount: LoopMount, source: String, target: String)
    {
        let mount = try Self.mount(make)
        let source = "\(mount.path)/source"
        try must("truncate", "-s", "64M", source)
        try must("sync", "-f", mount.path)
        return (mount, source, "\(mount.path)/target")
    }

    @Test(arguments: available) func `dirty data in a hole of the source is copied`(make: String)
        throws
    {
        let (mount, source, target) = try image(make)
        let server = try ServeProcess(source)
        let disk = try LoopDevice(size: 64 << 20)
        let places = [(source, target), (source, disk.path), (server.url(source), target)]
        for (round, (from, to)) in places.enumerated() {
            try scribble(source, seed: round)
            let result = try blkferry("-q", "--verify", from, to)
            #expect(result.status == 0, "\(result)")
            #expect(try areEqual(source, to))
        }
        withExtendedLifetime(mount) {}
    }

    @Test(arguments: available)
    func `dirty data in a hole of the target becomes zeros where the source has a hole`(
        make: String
    ) throws {
        let (mount, source, target) = try image(make)
        try must("truncate", "-s", "64M", target)
        let server = try ServeProcess("\(target):rw")
        try must("sync", "-f", mount.path)
        for (round, to) in [target, server.url(target)].enumerated() {
            try scribble(target, seed: 10 + round)
            let result = try blkferry("-q", "--verify", source, to)
            #expect(result.status == 0, "\(result)")
            #expect(try areEqual(source, target))
        }
        withExtendedLifetime(mount) {}
    }
}
