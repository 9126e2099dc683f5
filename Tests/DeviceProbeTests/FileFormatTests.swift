// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import DeviceProbe
import Foundation
import LinuxIO
import TestSupport
import Testing

/// What files begin with, and what they are called.
private let magicNumbers: [([UInt8], String)] = [
    ([0x42, 0x4d, 0x36, 0, 3, 0, 0, 0, 0, 0, 0x36, 0, 0, 0, 40, 0, 0, 0], "a BMP picture"),
    ([0x38, 0x42, 0x50, 0x53], "a Photoshop picture"),
    ([0x42, 0x4c, 0x45, 0x4e, 0x44, 0x45, 0x52], "a Blender file"),
    ([0x30, 0x26, 0xb2, 0x75, 0x8e, 0x66, 0xcf, 0x11], "a Windows Media file"),
    ([0x46, 0x4c, 0x56, 1], "a Flash video"), ([0, 0, 1, 0xba], "an MPEG video"),
    ([0x41, 0x43, 0x31, 0x30], "an AutoCAD drawing"),
    ([3, 0xd9, 0xa2, 0x9a], "a KeePass database"),
    ([0x85, 1, 0x0c, 3], "a file encrypted by OpenPGP"),
    ([0x30, 0x82, 4, 0xa1, 0x30, 0x82], "a key or certificate in DER"),
    (
        [0, 1, 0, 0, 0x53, 0x74, 0x61, 0x6e, 0x64, 0x61, 0x72, 0x64, 0x20],
        "a Microsoft Access database"
    ),
    ([0x21, 0x42, 0x44, 0x4e], "an Outlook folder"),
    ([0xbe, 0xba, 0xfe, 0xca, 0, 0, 0, 0], "a VMDK image"),
    ([0, 0, 0, 0x7b], "a dar archive"), ([0x4c, 0x52, 0x5a, 0x49], "an lrzip file"),
    ([0x50, 0x2a, 0x4d, 0x18], "a zstd file"), ([0x5f, 0x2a, 0x4d, 0x18], "a zstd file"),
    ([0x64, 0x65, 0x78, 0x0a], "an Android program"),
    ([0xa7, 0x0d, 0x0d, 0x0a], "a compiled Python program"),
    (
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x62, 0x31, 5, 0], "a Berkeley DB file"
    ),
]

/// Files that are no images of disks, as target and as source.
@Suite(.enabled(if: isRoot, "loop devices need root"), .blocking, .timeLimit(.minutes(60)))
struct FileFormatTests {
    private static func raw(_ scratch: borrowing ScratchDirectory) throws -> String {
        let path = try scratch.sparseFile("raw", size: 16 * MiB)
        try must("sgdisk", "-n", "1:0:+8M", path)
        return path
    }

    @Test func `a qcow2 image of a later version is refused and named`() throws {
        let scratch = try ScratchDirectory()
        let path = try scratch.sparseFile("later", size: 16 * MiB)
        try must("sh", "-c", "printf 'QFI\\373\\0\\0\\0\\011' | dd of=\(path) conv=notrunc")
        let no = try refusal(path, source: try openSource(Self.raw(scratch)).facts)
        #expect(no.reason == "it is a qcow2 image, which would be lost")
    }

    @Test(
        .enabled(if: (try? run("qemu-img", "--version")) != nil, "needs qemu-img"),
        arguments: [
            ("qcow2", "a qcow2 image"), ("qcow2 -o compat=0.10", "a qcow2 image"),
            ("qcow", "a qcow image"), ("vmdk", "a VMDK image"),
            ("vmdk -o subformat=monolithicFlat", "a VMDK image"), ("vpc", "a VHD image"),
            ("vpc -o subformat=fixed", "a VHD image"), ("vhdx", "a VHDX image"),
            ("vdi", "a VDI image"), ("qed", "a QED image"), ("parallels", "a Parallels image"),
        ])
    func `a virtual machine's image is refused and named, and its copy is a replica`(
        _ format: String, phrase: String
    ) throws {
        let scratch = try ScratchDirectory()
        let raw = try Self.raw(scratch)
        let packed = scratch.file("packed")
        let copy = scratch.file("copy")
        try must("sh", "-c", "qemu-img convert -O \(format) \(raw) \(packed)")
        try must("cp", packed, copy)
        let no = try refusal(packed, source: try openSource(raw).facts)
        #expect(no.cause == .signature)
        #expect(no.reason == "it is \(phrase), which would be lost")
        let facts = try openSource(packed).facts
        _ = try SafetyGate.admit(copy, source: facts, policy: GatePolicy())
        let loop = try LoopDevice(size: 64 * MiB)
        #expect(try refusal(loop.path, source: facts).advice?.hasPrefix("qemu-img convert") == true)
        var served = facts
        for name in ["http://host:8080/a/packed", "root@[::1]:/a/packed"] {
            served.name = name
            let advice = try refusal(loop.path, source: served).advice
            #expect(advice?.contains(" /a/packed disk.img unpacks it on the server's") == true)
        }
        let policy = GatePolicy(sizePolicy: .prefix)
        let unasked = try refusal(loop.path, source: facts, policy: policy)
        #expect(unasked.cause == .packed && unasked.reason.contains(phrase))
        let device = try SafetyGate.admit(
            loop.path, source: facts, policy: GatePolicy(sizePolicy: .prefix, overwrite: true))
        #expect(device.warnings.contains { $0.contains("\(phrase), and is written as it is") })
        #expect(device.warnings.contains { $0.contains("qemu-img convert -f") })
    }

    @Test(arguments: [
        ("gzip -c", "a gzip file", "gzip -dc"), ("xz -0 -c", "an xz file", "xz -dc"),
        ("bzip2 -1 -c", "a bzip2 file", "bzip2 -dc"), ("tar -cPf -", "a tar archive", "tar -xOf"),
        ("tar --format=v7 -cPf -", "a tar archive", "tar -xOf"),
    ])
    func `a packed image is refused as a target, and gives a warning as a source`(
        _ command: String, phrase: String, unpacker: String
    ) throws {
        try checkPacked(command, phrase, unpacker)
    }

    @Test(.enabled(if: Program.find("zstd") != nil, "needs zstd"))
    func `a zstd file is refused as a target, and gives a warning as a source`() throws {
        try checkPacked("zstd -q -c", "a zstd file", "zstd -dc")
    }

    private func checkPacked(_ command: String, _ phrase: String, _ unpacker: String) throws {
        let scratch = try ScratchDirectory()
        let raw = try Self.raw(scratch)
        let packed = scratch.file("packed")
        try must("sh", "-c", "\(command) \(raw) > \(packed)")
        let no = try refusal(packed, source: try openSource(raw).facts)
        #expect(no.reason == "it is \(phrase), which would be lost")
        let loop = try LoopDevice(size: 32 * MiB)
        let facts = try openSource(packed).facts
        let advice = try refusal(loop.path, source: facts).advice
        #expect(advice == "\(unpacker) \(packed) > disk.img unpacks it.")
        #expect(
            try refusal(loop.path, source: facts, policy: GatePolicy(sizePolicy: .prefix)).cause
                == .packed)
        let target = try SafetyGate.admit(
            loop.path, source: facts, policy: GatePolicy(sizePolicy: .prefix, overwrite: true))
        #expect(
            target.warnings.contains(
                "\(packed): it is \(phrase), and is written as it is; "
                    + "\(unpacker) \(packed) > disk.img unpacks it"))
    }

    @Test func `a block map gives a warning as a source, with the command that uses it`() throws {
        let scratch = try ScratchDirectory()
        let map = scratch.file("disk.bmap")
        try Data("<?xml version=\"1.0\" ?>\n<bmap version=\"2.0\">\n</bmap>\n".utf8).write(
            to: URL(fileURLWithPath: map))
        let loop = try LoopDevice(size: 32 * MiB)
        let facts = try openSource(map).facts
        #expect(try refusal(loop.path, source: facts).advice == "bmaptool copy unpacks it.")
        #expect(
            try refusal(loop.path, source: facts, policy: GatePolicy(sizePolicy: .prefix)).cause
                == .packed)
        let target = try SafetyGate.admit(
            loop.path, source: facts, policy: GatePolicy(sizePolicy: .prefix, overwrite: true))
        #expect(
            target.warnings.contains(
                "\(map): it is a block map, and is written as it is; bmaptool copy unpacks it"))
    }

    @Test(arguments: [
        ("%PDF-1.7\n", "a PDF document"), ("PK\u{3}\u{4}", "a zip archive"),
        ("\u{7f}ELF", "an ELF program"), ("SQLite format 3\0", "an SQLite database"),
        ("hello", "a text file"), ("#!/bin/sh\nexit\n", "a text file"),
        ("<?xml version=\"1.0\"?>\n<bmap version=\"2.0\">\n", "a block map"),
        ("<?xml version=\"1.0\"?>\n<html>\n", "a text file"), ("Grüße\n", "a text file"),
    ])
    func `a file that is no image is refused and named`(_ text: String, phrase: String) throws {
        let scratch = try ScratchDirectory()
        let path = scratch.file("file")
        try Data(text.utf8).write(to: URL(fileURLWithPath: path))
        let no = try refusal(path, source: facts(size: MiB))
        #expect(no.reason == "it is \(phrase), which would be lost")
        let copy = scratch.file("copy")
        try must("cp", path, copy)
        _ = try SafetyGate.admit(
            copy, source: try openSource(path).facts, policy: GatePolicy())
    }

    @Test(arguments: [
        String.Encoding.isoLatin1, .windowsCP1252, .utf16LittleEndian, .utf16BigEndian,
    ])
    func `text in other encodings than UTF-8 is text`(_ encoding: String.Encoding) throws {
        let scratch = try ScratchDirectory()
        let isWide = encoding == .utf16LittleEndian || encoding == .utf16BigEndian
        for count in [1, 1000] {
            let text = (isWide ? "\u{feff}" : "") + String(repeating: "Grüße\n", count: count)
            let path = scratch.file("file\(count)")
            try #require(text.data(using: encoding)).write(to: URL(fileURLWithPath: path))
            let no = try refusal(path, source: facts(size: MiB))
            #expect(no.reason == "it is a text file, which would be lost")
        }
    }

    @Test(arguments: magicNumbers)
    func `a magic number identifies a format, whatever the size`(_ magic: [UInt8], phrase: String)
        throws
    {
        let scratch = try ScratchDirectory()
        let path = scratch.file("file")
        var generator = SeededGenerator(seed: 11)
        let bytes = magic + generator.bytes(64 << 10 - magic.count)
        try Data(bytes).write(to: URL(fileURLWithPath: path))
        let no = try refusal(path, source: facts(size: MiB))
        #expect(no.reason == "it is \(phrase), which would be lost")
    }

    @Test func `a file of unknown content that has no whole sectors is no disk image`() throws {
        let scratch = try ScratchDirectory()
        let path = scratch.file("file")
        var generator = SeededGenerator(seed: 12)
        var bytes = generator.bytes(100_352)
        bytes[0] = 0x80
        for size in [511, 100_001, 100_351] {
            try Data(bytes.prefix(size)).write(to: URL(fileURLWithPath: path))
            let no = try refusal(path, source: facts(size: MiB))
            #expect(no.cause == .signature)
            #expect(
                no.reason
                    == "its size, \(size) bytes, is no multiple of 512, so it is no disk image"
            )
            // What an interrupted run leaves has the source's size.
            _ = try SafetyGate.admit(path, source: facts(size: size), policy: GatePolicy())
            _ = try SafetyGate.admit(
                path, source: facts(size: MiB), policy: GatePolicy(overwrite: true))
        }
        let hole = try scratch.sparseFile("hole", size: 5000)
        _ = try SafetyGate.admit(hole, source: facts(size: MiB), policy: GatePolicy())
        for size in [0, 512, 100_352] {
            try Data(bytes.prefix(size)).write(to: URL(fileURLWithPath: path))
            _ = try SafetyGate.admit(path, source: facts(size: MiB), policy: GatePolicy())
        }
    }

    @Test func `random data and zeros have no format`() throws {
        let scratch = try ScratchDirectory()
        let path = scratch.file("file")
        // The high bit of the first byte keeps chance from making a magic number.
        var generator = SeededGenerator(seed: 7)
        var bytes = generator.bytes(MiB)
        bytes[0] = 0x80
        for content in [bytes, [UInt8](repeating: 0, count: MiB)] {
            try Data(content).write(to: URL(fileURLWithPath: path))
            _ = try SafetyGate.admit(path, source: facts(size: MiB), policy: GatePolicy())
        }
    }
}
