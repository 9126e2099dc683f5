// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import LinuxIO
import SystemPackage
import TestSupport
import Testing

/// The devices of this machine.
private enum Implementations {
    /// Those that this user can make; a test that is skipped shows when that is not all.
    static let all = every.filter { isRoot || !$0.needsRoot }

    private static let every = [
        Implementation("memory") { (MemoryDevice([UInt8](repeating: 0, count: $0)), nil) },
        Implementation("image, direct I/O") { size in
            let scratch = try ScratchDirectory()
            let path = try scratch.sparseFile("image", size: size)
            return (try ImageFile(path: path, name: path, access: .readWrite), scratch)
        },
        Implementation("image, file system without direct I/O", needsRoot: true) { size in
            let mount = try journalledMount()
            let path = "\(mount.path)/image"
            try must("truncate", "-s", "\(size)", path)
            let image = try ImageFile(path: path, name: path, access: .readWrite)
            #expect(!image.isDirect)
            return (image, mount)
        },
        loop(sector: 512),
        loop(sector: 4096),
        loop(sector: 512, thin: ThinChunks(size: 64 << 10, areZeroed: true)),
        loop(sector: 4096, thin: ThinChunks(size: 192 << 10, areZeroed: true)),
    ]

    private static func loop(sector: Int, thin: ThinChunks? = nil) -> Implementation {
        let kind = thin.map { "thin volume, chunks of \($0.size)" } ?? "block device"
        return Implementation("\(kind), \(sector)-byte sectors", needsRoot: true) {
            let loop = try LoopDevice(size: $0, sectorSize: sector)
            let device = try BlockSpecialFile(
                path: loop.path, name: loop.path, access: .readWrite, thin: thin)
            return (device, loop)
        }
    }
}

@Suite(.blocking) struct ConformanceTests {
    @Test(arguments: Implementations.all)
    func `a block device keeps what is written`(implementation: Implementation) throws {
        #expect(try Conformance.keepsWhatIsWritten(implementation) == [])
    }

    @Test(arguments: Implementations.all)
    func `a ragged end is read, written and zeroed like any other byte`(
        implementation: Implementation
    ) throws {
        #expect(try Conformance.hasRaggedEnds(implementation) == [])
    }

    @Test(.enabled(if: isRoot, "block devices and mounts need root, and are left out"))
    func `block devices and a file system without direct I/O are among those tested`() {
        #expect(Implementations.all.count == 7)
    }

    @Test(arguments: Implementations.all)
    func `transfers done together give the same bytes as transfers done one by one`(
        implementation: Implementation
    ) throws {
        let isTogether =
            implementation.description == "image, direct I/O"
            || implementation.description.hasPrefix("block device")
        // Of an image the end may be ragged.
        let ragged = implementation.description.hasPrefix("image") ? 77 : 0
        #expect(
            try Conformance.transfersTogether(
                implementation, isTogether: isTogether, ragged: ragged) == [])
    }

    @Test(arguments: Implementations.all.dropFirst())
    func `reading beyond the end is an error, not a short read`(implementation: Implementation)
        throws
    {
        #expect(try Conformance.failsBeyondTheEnd(implementation) == [])
    }
}

@Suite(.blocking) struct ImageFileTests {
    @Test func `an image of any size is read to its last byte`() throws {
        let scratch = try ScratchDirectory()
        for size in [1, 511, 512, 513, 4095, 4097, (1 << 20) + 1] {
            let path = try scratch.sparseFile("image-\(size)", size: size)
            let image = try ImageFile(path: path, name: path, access: .readWrite)
            var random = SeededGenerator(seed: UInt64(size))
            let bytes = random.bytes(size)
            try image.write(bytes, at: 0)
            try image.flush()
            #expect(try image.content() == bytes)
            #expect(try [UInt8](contentsOf: path) == bytes)
        }
    }

    @Test func `zeroing an image frees its blocks`() throws {
        let scratch = try ScratchDirectory()
        let path = try scratch.sparseFile("image", size: 1 << 20)
        let image = try ImageFile(path: path, name: path, access: .readWrite)
        try image.write([UInt8](repeating: 1, count: 1 << 20), at: 0)
        try image.flush()
        let before = try image.status().allocated
        try image.zero(ByteRange(offset: 0, length: 1 << 19))
        try image.flush()
        #expect(try image.status().allocated <= before - (1 << 19) + 8192)
        #expect(try image.nextData(from: 0)?.offset == 1 << 19)
    }

    @Test func `two exclusive locks exclude each other, two shared ones do not`() throws {
        let scratch = try ScratchDirectory()
        let path = try scratch.sparseFile("image", size: 4096)
        let first = try ImageFile(path: path, name: path, access: .readWrite)
        #expect(try first.lock(exclusive: true))
        let second = try ImageFile(path: path, name: path, access: .readWrite)
        #expect(try !second.lock(exclusive: true))
        #expect(try !second.lock(exclusive: false))
        #expect(try first.lock(exclusive: false))
        #expect(try second.lock(exclusive: false))
        #expect(try !second.lock(exclusive: true))
    }

    @Test func `a program that opens an image again counts only if the image has changed`() throws {
        let scratch = try ScratchDirectory()
        let path = scratch.file("image")
        // Not made here: a child that another test starts could close it after the image is watched.
        try must("truncate", "-s", "4096", path)
        let image = try ImageFile(path: path, name: path, access: .readWrite)
        #expect(try image.lock(exclusive: true))
        #expect(!image.hadOtherWriters())
        try must("sh", "-c", ": 3<>\(path)")
        #expect(image.hadOtherWriters())
        #expect(!image.hadOtherWriters())
        try must("sh", "-c", ": 3<>\(path)")
        #expect(!image.hadOtherWriters())
        // The new mode stands for a write that the kernel does not report.
        try must("sh", "-c", "sleep 0.05; chmod 0640 \(path); : 3<>\(path)")
        #expect(image.hadOtherWriters())
        #expect(!image.hasForeignWrites())
    }

    @Test func `the change counter of an image changes with its content and its size only`() throws
    {
        let scratch = try ScratchDirectory()
        let path = try scratch.sparseFile("image", size: 8192)
        let image = try ImageFile(path: path, name: path, access: .readWrite)
        let stamp = image.changeCounter()
        _ = try image.content()
        #expect(image.changeCounter() == stamp)
        try must("dd", "if=/dev/urandom", "of=\(path)", "bs=512", "count=1", "conv=notrunc")
        let changed = image.changeCounter()
        #expect(changed != stamp)
        try must("truncate", "-s", "4096", path)
        #expect(image.changeCounter() != changed)
    }

    @Test func `an image that was cut short while open gives an error that says so`() throws {
        let scratch = try ScratchDirectory()
        let path = try scratch.sparseFile("image", size: 65536)
        let image = try ImageFile(path: path, name: path, access: .read)
        try must("truncate", "-s", "5000", path)
        let buffer = AlignedBuffer(count: 65536)
        let error = #expect(throws: IOError.self) { try image.read(into: buffer.bytes, at: 0) }
        #expect(error?.description.contains("ended after") == true)
    }

    @Test(.enabled(if: isRoot, "mounting needs root"))
    func `a full file system is ENOSPC, with the range`() throws {
        let mount = try TemporaryFileSystem(size: 1 << 20)
        let path = "\(mount.path)/image"
        try must("truncate", "-s", "8M", path)
        let image = try ImageFile(path: path, name: path, access: .readWrite)
        let error = #expect(throws: IOError.self) {
            try image.write([UInt8](repeating: 1, count: 4 << 20), at: 0)
        }
        #expect(error?.errno == .noSpace)
        #expect(error?.operation == "write at offset 0, length 4194304")
    }
}

@Suite(.blocking, .enabled(if: isRoot, "loop devices need root")) struct BlockSpecialFileTests {
    @Test func `opening for writing claims the device`() throws {
        let loop = try LoopDevice(size: 1 << 20)
        let first = try BlockSpecialFile(path: loop.path, name: loop.path, access: .readWrite)
        let error = #expect(throws: IOError.self) {
            try BlockSpecialFile(path: loop.path, name: loop.path, access: .readWrite)
        }
        #expect(error?.errno == .resourceBusy)
        _ = try BlockSpecialFile(path: loop.path, name: loop.path, access: .read)
        withExtendedLifetime(first) {}
    }

    @Test(arguments: [512, 4096])
    func `sector size and read-only state are the kernel's`(sector: Int) throws {
        let loop = try LoopDevice(size: 1 << 20, sectorSize: sector, readOnly: true)
        let device = try BlockSpecialFile(path: loop.path, name: loop.path, access: .read)
        #expect(device.geometry.logicalSector == sector)
        #expect(try device.isReadOnly())
    }

    @Test func `a partial sector at the end, which the kernel cannot reach, does not count`() throws
    {
        let loop = try LoopDevice(size: (1 << 20) + 1536, sectorSize: 4096)
        let device = try BlockSpecialFile(path: loop.path, name: loop.path, access: .readWrite)
        let size = device.geometry.size
        #expect(size == 1 << 20)
        var random = SeededGenerator(seed: 3)
        let bytes = random.bytes(size)
        try device.write(bytes, at: 0)
        try device.flush()
        #expect(try device.content() == bytes)
    }

    @Test func `a bad block of a real device is a medium error with its range`() throws {
        let loop = try LoopDevice(size: 1 << 20)
        let device = try BlockSpecialFile(path: loop.path, name: loop.path, access: .read)
        // A loop device answers EIO where its file no longer is.
        try must("truncate", "-s", "512K", loop.backingFile)
        let buffer = AlignedBuffer(count: 4096)
        try device.read(into: buffer.bytes, at: 0)
        let error = #expect(throws: IOError.self) {
            try device.read(into: buffer.bytes, at: 768 << 10)
        }
        #expect(error?.isMediumError == true)
        #expect(error?.operation == "read at offset 786432, length 4096")
    }

    @Test func `the change counter of a device changes with writes, not with reads`() throws {
        let loop = try LoopDevice(size: 1 << 20)
        let device = try BlockSpecialFile(path: loop.path, name: loop.path, access: .read)
        let stamp = device.changeCounter()
        #expect(stamp != nil)
        _ = try device.content()
        #expect(device.changeCounter() == stamp)
        try must(
            "dd", "if=/dev/urandom", "of=\(loop.path)", "bs=4096", "count=1", "oflag=direct")
        #expect(device.changeCounter() != stamp)
    }

    @Test func `neither reading nor writing leaves a page in the cache`() throws {
        let loop = try LoopDevice(size: 4 << 20)
        let device = try BlockSpecialFile(path: loop.path, name: loop.path, access: .readWrite)
        let holds = try holdsUndisturbed {
            try device.write([UInt8](repeating: 1, count: 1 << 20), at: 0)
            try device.write([UInt8](repeating: 1, count: 700), at: 2 << 20)
            _ = try device.content()
            try device.flush()
            return try cachedPages(of: loop.path) == 0
        }
        #expect(holds)
    }

    @Test func `the kernel reads the partition table again if the device can have partitions`()
        throws
    {
        for partitions in [true, false] {
            let loop = try LoopDevice(size: 1 << 20, partitions: partitions)
            let device = try BlockSpecialFile(path: loop.path, name: "target", access: .readWrite)
            #expect(device.rereadPartitions() == partitions)
        }
    }
}

@Suite struct ZeroExtendedDeviceTests {
    @Test(arguments: [0, 1000, 4096, 10000])
    func `a larger size reads as zeros beyond the old end, and a smaller size cuts`(size: Int)
        throws
    {
        let base = MemoryDevice([UInt8](repeating: 9, count: 4096))
        let device = ZeroExtendedDevice(base, name: "later", size: size)
        let expected = (0..<size).map { $0 < 4096 ? UInt8(9) : 0 }
        #expect(try device.content() == expected)
        #expect(try device.nextData(from: 0)?.end == (size == 0 ? nil : min(size, 4096)))
        #expect(throws: IOError.self) { try device.write([1], at: 0) }
        #expect(throws: IOError.self) { try device.zero(ByteRange(offset: 0, length: 1)) }
    }
}
