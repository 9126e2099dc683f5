// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// `blkferry` on real block devices.
@Suite(.blocking, .enabled(if: isRoot, "loop devices need root")) struct DeviceSyncTests {
    private let size = 24 << 20

    @Test(arguments: [512, 4096], [512, 4096])
    func `a device is synced to a device, whatever the sector sizes`(first: Int, second: Int) throws
    {
        let source = try LoopDevice(size: size, sectorSize: first)
        let target = try LoopDevice(size: size, sectorSize: second)
        try fill(source.path, seed: 1, size: size)
        try overwrite(source.path, [UInt8](repeating: 0, count: 1 << 20), at: 2 << 20)
        let (result, json) = try blkferryJSON("--verify", source.path, target.path)
        #expect(result.status == 0, "\(result)")
        #expect(json.bool("verified") == true)
        #expect(try areEqual(source.path, target.path))
        try overwrite(target.path, [1], at: 5_000_000)
        let second = try blkferryJSON(source.path, target.path)
        #expect(second.json.int("written") == 4096)
        #expect(try areEqual(source.path, target.path))
    }

    @Test func `a block size below the sector is raised to it`() throws {
        let source = try LoopDevice(size: size)
        let target = try LoopDevice(size: size, sectorSize: 4096)
        try fill(source.path, seed: 1, size: size)
        let (result, json) = try blkferryJSON("-b", "512", source.path, target.path)
        #expect(result.status == 0)
        #expect(json.int("blockSize") == 4096)
        #expect(try areEqual(source.path, target.path))
    }

    @Test(arguments: [4096, 512])
    func `a block size that does not fit the devices is wrong usage`(sectorOfSource: Int) throws {
        let source = try LoopDevice(size: size, sectorSize: sectorOfSource)
        let target = try LoopDevice(size: size, sectorSize: 4096)
        try fill(source.path, seed: 1, size: 4096)
        let result = try blkferry("-b", "\((16 << 20) - 512)", source.path, target.path)
        #expect(result.status == 64)
        let named = sectorOfSource == 4096 ? source : target
        #expect(result.errors.contains("4096 bytes on \(named.path)"), "\(result)")
        #expect(try [UInt8](contentsOf: target.path).allSatisfy { $0 == 0 })
    }

    @Test func `a device is synced to an image and back`() throws {
        let scratch = try ScratchDirectory()
        let device = try LoopDevice(size: size)
        try fill(device.path, seed: 1, size: size)
        let image = scratch.file("image")
        #expect(try blkferry(device.path, image).status == 0)
        #expect(try areEqual(device.path, image))
        let other = try LoopDevice(size: size)
        #expect(try blkferry(image, other.path).status == 0)
        #expect(try areEqual(image, other.path))
    }

    @Test func `an image that ends within a sector goes to a larger device as its prefix`() throws {
        let scratch = try ScratchDirectory()
        let image = try scratch.filledFile("image", size: (1 << 20) + 1, seed: 1)
        for sector in [512, 4096] {
            let target = try LoopDevice(size: 2 << 20, sectorSize: sector)
            try fill(target.path, seed: 2, size: 2 << 20)
            let tail = try [UInt8](contentsOf: target.path).dropFirst((1 << 20) + 1)
            #expect(try blkferry(image, target.path).status == 2)
            let (result, json) = try blkferryJSON(
                "--size-policy", "prefix", "--verify", image, target.path)
            #expect(result.status == 0, "\(result)")
            #expect(json.bool("verified") == true)
            let bytes = try [UInt8](contentsOf: target.path)
            #expect(try bytes.prefix((1 << 20) + 1).elementsEqual([UInt8](contentsOf: image)))
            #expect(bytes.dropFirst((1 << 20) + 1).elementsEqual(tail))
        }
    }

    @Test func `a file system is found by its UUID and label, and a replica makes them ambiguous`()
        throws
    {
        let source = try LoopDevice(size: size)
        let target = try LoopDevice(size: size)
        let label = "bf\(Int.random(in: 0..<1_000_000))"
        try must("mkfs.ext4", "-q", "-L", label, source.path)
        let uuid = try must("blkid", "-p", "-s", "UUID", "-o", "value", source.path).dropLast()
        #expect(try blkferry("UUID=\(uuid)", target.path).status == 0)
        #expect(try areEqual(source.path, target.path))
        for selector in ["UUID=\(uuid)", "LABEL=\(label)"] {
            let result = try blkferry("verify", selector, target.path)
            #expect(result.status == 2)
            #expect(result.errors.contains(source.path) && result.errors.contains(target.path))
        }
    }

    @Test func `the last call on a target is a flush`() throws {
        let scratch = try ScratchDirectory()
        let source = try LoopDevice(size: size)
        let device = try LoopDevice(size: size)
        try fill(source.path, seed: 1, size: size)
        for (target, wanted) in [
            (device.path, ["pwrite64", "fdatasync", "ioctl"]),
            (scratch.file("image"), ["pwrite64", "fdatasync"]),
        ] {
            let log = scratch.file("log")
            try must(
                "strace", "-f", "-y", "-o", log, "-e", "trace=pwrite64,fdatasync,ioctl", program,
                "-q", source.path, target)
            let calls = try systemCalls(inTrace: log)
                .filter { $0.contains("<\(target)>") }
                .filter { !$0.contains("ioctl") || $0.contains("BLKFLSBUF") }
                .compactMap { $0.split(whereSeparator: { " (".contains($0) }).dropFirst().first }
            #expect(calls.contains("pwrite64"))
            #expect(calls.suffix(wanted.count).map(String.init) == wanted, "\(target)")
        }
    }

    @Test func `the gate waits for a target that another program holds for a moment`() throws {
        let scratch = try ScratchDirectory()
        let source = try LoopDevice(size: size)
        let target = try LoopDevice(size: size)
        try fill(source.path, seed: 1, size: size)
        let log = scratch.file("log")
        // The first open is a look at the device, the second one claims it.
        let result = try RunningProgram([
            "strace", "-f", "-o", log, "-e", "trace=openat,fcntl,flock", "-P", target.path,
            "-e", "inject=openat:error=EBUSY:when=2..4",
            "-e", "inject=fcntl,flock:error=EAGAIN:when=1..3", program, source.path, target.path,
        ]).wait()
        #expect(result.status == 0, "\(result)")
        #expect(try areEqual(source.path, target.path))
        let refused = try systemCalls(inTrace: log).filter { $0.contains("INJECTED") }
        for (call, count) in [("O_EXCL", 2), ("F_OFD_SETLK", 3), ("flock(", 3)] {
            #expect(refused.count { $0.contains(call) } == count, "\(call)")
        }
    }

    @Test func `dirty pages of a partition are part of the disk`() throws {
        let disk = try LoopDevice(size: size, partitions: true)
        let copy = try LoopDevice(size: size)
        try must("sfdisk", "-q", disk.path, input: "label: dos\n2048,16384\n")
        try must("partx", "--update", disk.path)
        defer { _ = try? must("partx", "--delete", disk.path) }
        let partition = try FileHandle(forUpdating: URL(fileURLWithPath: "\(disk.path)p1"))
        try partition.write(contentsOf: Data(repeating: 0x5A, count: 4096))
        let first = try blkferry(disk.path, copy.path)
        #expect(first.status == 0, "\(first)")
        let offset = 2048 * 512
        let bytes = try [UInt8](contentsOf: copy.path, count: offset + 4096)
        #expect(bytes[offset...].allSatisfy { $0 == 0x5A })

        // And dirty pages of the target are not written over the replica afterwards.
        try partition.seek(toOffset: 0)
        try partition.write(contentsOf: Data(repeating: 0xA5, count: 4096))
        let second = try blkferry("--verify", copy.path, disk.path)
        #expect(second.status == 0, "\(second)")
        try partition.synchronize()
        try partition.close()
        #expect(try areEqual(copy.path, disk.path))
    }

    @Test func `a run leaves no page of source or target in the cache`() throws {
        let scratch = try ScratchDirectory()
        let source = try LoopDevice(size: size)
        let target = try LoopDevice(size: size)
        let image = try scratch.sparseFile("image", size: size + 100)
        try must("mkfs.ext4", "-q", source.path)
        try fill(source.path, seed: 1, size: 4 << 20, offset: 16 << 20)
        let holds = try holdsUndisturbed {
            try must("blockdev", "--flushbufs", source.path)
            let before = try cachedPages(of: source.path)
            #expect(try blkferry("--verify", "--overwrite", source.path, target.path).status == 0)
            #expect(try blkferry("--size-policy", "prefix", source.path, image).status == 0)
            let after = try [source.path, target.path, image].map { try cachedPages(of: $0) }
            return before == 0 && after == [0, 0, 0]
        }
        #expect(holds)
    }

    @Test func `pages that were cached before the run stay cached`() throws {
        let scratch = try ScratchDirectory()
        let source = try scratch.filledFile("source", size: size, seed: 1)
        let holds = try holdsUndisturbed {
            _ = try [UInt8](contentsOf: source)
            let before = try cachedPages(of: source)
            #expect(try blkferry(source, scratch.file("target")).status == 0)
            return try before == size / 4096 && cachedPages(of: source) == before
        }
        #expect(holds)
    }

    @Test func `a file system without direct I/O is used as well, and -v says so`() throws {
        let mount = try journalledMount()
        let source = try LoopDevice(size: 8 << 20)
        try fill(source.path, seed: 1, size: 8 << 20)
        let image = "\(mount.path)/image"
        let result = try blkferry("-v", "--verify", source.path, image)
        #expect(result.status == 0)
        #expect(result.errors.contains("\(image): ") && result.errors.contains("no direct I/O"))
        #expect(result.errors.contains("\(source.path): 8388608 bytes"))
        #expect(try cachedPages(of: image) == 0)
        #expect(try areEqual(source.path, image))
    }

    @Test func `a full file system fails the run with the extent, and no summary says done`() throws
    {
        let source = try LoopDevice(size: size)
        try fill(source.path, seed: 1, size: size)
        let mount = try TemporaryFileSystem(size: 4 << 20)
        let result = try blkferry(source.path, "\(mount.path)/image")
        #expect(result.status == 3)
        #expect(result.errors.contains("No space left on device"))
        #expect(result.errors.contains("write at offset"))
        let lines = result.errors.split(separator: "\n")
        #expect(lines.count == 3, "a warning before, one line, and what to do: \(result)")
        #expect(lines[0].hasPrefix("blkferry: warning: \(mount.path)/image: "))
        #expect(result.output.contains("incomplete"))
    }

    @Test func `a bad block fails the run with device, offset and length`() throws {
        let source = try LoopDevice(size: size)
        let target = try LoopDevice(size: size)
        try fill(source.path, seed: 1, size: size)
        try fill(target.path, seed: 2, size: size)
        let good = try [UInt8](contentsOf: source.path)
        let old = try [UInt8](contentsOf: target.path)
        // A loop device answers EIO where its file no longer is.
        let end = size - (1 << 20) - 8192
        try must("truncate", "-s", "\(end)", source.backingFile)
        let failed = try blkferry(source.path, target.path)
        #expect(failed.status == 3)
        #expect(failed.errors.contains("\(source.path): read at offset "))
        #expect(failed.errors.contains("--skip-unreadable"))

        let (result, json) = try blkferryJSON("--skip-unreadable", source.path, target.path)
        #expect(result.status == 6, "\(result)")
        let errors = try #require(json.record("readErrors"))
        #expect(errors.int("unreadable") == size - end)
        let ranges = try #require(errors.records("ranges"))
        #expect(ranges.map { $0.int("offset") } == [end])
        #expect(ranges.map { $0.int("length") } == [size - end])
        let bytes = try [UInt8](contentsOf: target.path)
        #expect(bytes.prefix(end) == good.prefix(end))
        #expect(bytes.dropFirst(end) == old.dropFirst(end))
    }

    @Test func `every refusal leaves the target as it was and ends with 2`() throws {
        let source = try LoopDevice(size: size)
        try must("mkfs.ext4", "-q", "-L", "one", source.path)
        let foreign = try LoopDevice(size: size)
        try must("mkfs.ext4", "-q", "-L", "precious", foreign.path)
        // For reading, or it would write by itself.
        let mount = try LoopMount(size: size, options: "ro")
        let readOnly = try LoopDevice(size: size, readOnly: true)
        let smaller = try LoopDevice(size: size / 2)
        let larger = try LoopDevice(size: size * 2)
        let cases: [(target: String, words: [String])] = [
            (source.path, ["is the source"]), (source.backingFile, [source.path]),
            (foreign.path, ["ext4", "\"precious\"", "--overwrite"]),
            (mount.loop.path, ["mounted on \(mount.path)"]), (readOnly.path, ["read-only"]),
            (smaller.path, ["\(size)", "\(size / 2)"]), (larger.path, ["--size-policy prefix"]),
        ]
        for (target, words) in cases {
            let before = try must("sha256sum", target)
            for arguments in [[], ["--dry-run"]] {
                let result = try RunningProgram(
                    [program, "sync"] + arguments + [source.path, target]
                ).wait()
                #expect(result.status == 2, "\(target): \(result)")
                for word in words { #expect(result.errors.contains(word), "\(result.errors)") }
            }
            #expect(try must("sha256sum", target) == before)
        }
        #expect(try blkferry("--overwrite", source.path, foreign.path).status == 0)
        #expect(try areEqual(source.path, foreign.path))
        #expect(try blkferry(source.path, foreign.path).status == 0, "a replica may be refreshed")
    }

    @Test func `list shows the content of a device, and leaves out empty loop devices`() throws {
        let device = try LoopDevice(size: size, sectorSize: 4096)
        try must("mkfs.ext4", "-q", "-L", "lbl", device.path)
        let mount = try LoopMount(size: size)
        let result = try blkferry("list", "--json")
        #expect(result.status == 0)
        let object = try JSONSerialization.jsonObject(with: Data(result.output.utf8))
        let list = Record(try #require(object as? [String: Any]))
        let devices = try #require(list.records("devices"))
        let entry = try #require(devices.first { $0.string("path") == device.path })
        #expect(entry.int("size") == size)
        #expect(entry.int("logicalSector") == 4096)
        let signature = try #require(entry.records("signatures")?.first)
        #expect(signature.string("type") == "ext4" && signature.string("label") == "lbl")
        #expect(signature.string("uuid")?.count == 36)
        let mounted = try #require(devices.first { $0.string("path") == mount.loop.path })
        #expect(mounted.strings("inUseBy") == ["mounted on \(mount.path)"])
        #expect(devices.allSatisfy { $0.int("size") != 0 })
        let text = try blkferry("list").output
        #expect(text.contains("DEVICE") && text.contains("lbl") && text.contains(mount.path))
    }
}
