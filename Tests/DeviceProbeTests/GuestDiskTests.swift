// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import DeviceProbe
import Foundation
import LinuxIO
import TestSupport
import Testing

private let hasQemu = (try? run("qemu-img", "--version")) != nil

/// Files that change from run to run and stay what they are.
@Suite(.blocking, .timeLimit(.minutes(60)))
struct GuestDiskTests {
    @Test(
        .enabled(if: hasQemu, "needs qemu-img"),
        arguments: ["qcow2", "vmdk", "vhdx", "vdi", "vpc"])
    func `an image is a replica again after its guest wrote, and an image of another disk is not`(
        _ format: String
    ) throws {
        let scratch = try ScratchDirectory()
        let raw = try scratch.sparseFile("raw", size: 16 * MiB)
        let (image, copy) = (scratch.file("image"), scratch.file("copy"))
        let (twin, place) = (scratch.file("twin"), scratch.file("place"))
        try must("sgdisk", "-n", "1:0:+8M", raw)
        // A descriptor has the name of its file, so both images are made under one.
        for made in [image, twin] {
            try must("sgdisk", "-G", raw)
            try must("qemu-img", "convert", "-O", format, raw, place)
            try must("mv", place, made)
        }
        try must("cp", image, copy)
        let write = ["write -P 7 3M 64k", "write -P 8 12M 2M"]
        for command in write { try must("qemu-io", "-f", format, "-c", command, image) }
        let facts = try openSource(image).facts
        _ = try SafetyGate.admit(copy, source: facts, policy: GatePolicy())
        #expect(try refusal(twin, source: facts).cause == .signature)
    }

    @Test(.enabled(if: hasQemu, "needs qemu-img"))
    func `a VMDK image of unknown content is recognized by the start of the guest's disk`() throws {
        let scratch = try ScratchDirectory()
        let raw = scratch.file("raw")
        let (image, copy) = (scratch.file("image"), scratch.file("copy"))
        var generator = SeededGenerator(seed: 13)
        try Data(generator.bytes(4 * MiB)).write(to: URL(fileURLWithPath: raw))
        try must("qemu-img", "convert", "-f", "raw", "-O", "vmdk", raw, image)
        try must("cp", image, copy)
        try must("qemu-io", "-f", "vmdk", "-c", "write -P 7 1M 64k", image)
        _ = try SafetyGate.admit(
            copy, source: try openSource(image).facts, policy: GatePolicy())
        try must("qemu-io", "-f", "vmdk", "-c", "write -P 7 0 64k", image)
        #expect(try refusal(copy, source: try openSource(image).facts).cause == .signature)
    }

    @Test func `a VMDK descriptor is recognized by its identifier`() throws {
        let scratch = try ScratchDirectory()
        func file(_ name: String, cid: String, uuid: String) throws -> String {
            let path = scratch.file(name)
            let text = """
                # Disk DescriptorFile
                version=1
                CID=\(cid)
                parentCID=ffffffff
                RW 32768 FLAT "\(name)-flat.vmdk" 0
                ddb.uuid.image="\(uuid)"
                """
            try Data(text.utf8).write(to: URL(fileURLWithPath: path))
            return path
        }
        let uuid = "0f5a2e1c-0000-4d6f-9c4e-3b1a5d7e9f11"
        let facts = try openSource(file("a", cid: "11111111", uuid: uuid)).facts
        let same = try file("b", cid: "22222222", uuid: uuid)
        _ = try SafetyGate.admit(same, source: facts, policy: GatePolicy())
        let other = try file("c", cid: "11111111", uuid: uuid.replacing("5a2e", with: "5a2f"))
        #expect(try refusal(other, source: facts).cause == .signature)
    }

    @Test func `an image that contains its own start is probed to an end`() throws {
        let scratch = try ScratchDirectory()
        let cluster = 64 << 10
        func number(_ value: UInt64, _ length: Int) -> [UInt8] {
            (0..<length).reversed().map { UInt8(value >> (8 * UInt64($0)) & 255) }
        }
        // Magic number, version, backing file, cluster, size, encryption, size and place of L1.
        let header: [UInt8] =
            [0x51, 0x46, 0x49, 0xfb] + number(2, 4) + number(0, 12) + number(16, 4)
            + number(1 << 20, 8) + number(0, 4) + number(1, 4) + number(1 << 16, 8)
        var bytes = [UInt8](repeating: 0, count: 4 * cluster)
        bytes.replaceSubrange(0..<header.count, with: header)
        bytes.replaceSubrange(3 * cluster..<3 * cluster + header.count, with: header)
        bytes.replaceSubrange(cluster..<cluster + 8, with: number(UInt64(2 * cluster), 8))
        for (index, place) in [3, 1, 2, 3].enumerated() {
            let entry = 2 * cluster + 8 * index
            bytes.replaceSubrange(entry..<entry + 8, with: number(UInt64(place * cluster), 8))
        }
        let path = scratch.file("image")
        try Data(bytes).write(to: URL(fileURLWithPath: path))
        #expect(try openSource(path).facts.content.found.map(\.type) == ["qcow2"])
    }

    @Test(.enabled(if: (try? run("python3", "-c", "import sqlite3")) != nil, "needs python3"))
    func `an SQLite database is a replica again after an insertion, and another database is not`()
        throws
    {
        let scratch = try ScratchDirectory()
        func execute(_ name: String, _ statement: String) throws -> String {
            let path = scratch.file(name)
            let program = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); "
            try must(
                "python3", "-c", program + "c.execute(sys.argv[2]); c.commit()", path, statement)
            return path
        }
        let base = try execute("base", "create table a(b)")
        let copy = scratch.file("copy")
        try must("cp", base, copy)
        _ = try execute("base", "insert into a values(1)")
        let facts = try openSource(base).facts
        _ = try SafetyGate.admit(copy, source: facts, policy: GatePolicy())
        let other = try execute("other", "create table c(d)")
        #expect(try refusal(other, source: facts).cause == .signature)
    }
}
