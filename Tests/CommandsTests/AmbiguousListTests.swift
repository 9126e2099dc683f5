// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// Devices with two signatures: libblkid's safe probing would show only the one that it meets first.
@Suite(.enabled(if: isRoot, "loop devices need root"), .blocking, .timeLimit(.minutes(60)))
struct AmbiguousListTests {
    private let scratch: ScratchDirectory
    private let disk: LoopDevice
    private let array = UUID()
    private let fileSystem = UUID().uuidString.lowercased()
    private let label: String
    private var arrayUUID: String { array.uuidString.lowercased() }

    /// An ext4 over a stale md superblock at the end of the disk.
    init() throws {
        scratch = try ScratchDirectory()
        label = "t" + fileSystem.prefix(8)
        let image = try scratch.sparseFile("image", size: 16 << 20)
        try must("mkfs.ext4", "-q", "-F", "-U", fileSystem, "-L", label, image)
        try Superblocks.md1(image, minor: 0, set: array, device: UUID())
        disk = try LoopDevice(backingFile: image)
    }

    /// What a table says of the disk, cell by cell.
    private func cells(_ table: String) -> [String] {
        let lines = table.components(separatedBy: "\n").map {
            $0.components(separatedBy: "  ").map { $0.trimmingCharacters(in: .whitespaces) }
        }
        return lines.first { $0.contains(disk.path) } ?? []
    }

    @Test func `list shows both signatures, and that they contradict each other`() throws {
        let row = cells(try blkferry("list").output)
        #expect(row.contains("linux_raid_member,ext4 (ambiguous)"), "\(row)")
        #expect(row.contains("host:0,\(label)"), "\(row)")
        #expect(row.contains("\(arrayUUID),\(fileSystem)"), "\(row)")
    }

    @Test func `list --json shows both signatures`() throws {
        let (result, json) = try blkferryJSON("list")
        let device = try #require(json.records("devices")?.first { $0.string("path") == disk.path })
        #expect(result.status == 0 && device.bool("ambiguous") == true)
        let found = try #require(device.records("signatures"))
        #expect(found.map { $0.string("type") } == ["linux_raid_member", "ext4"])
        #expect(found.map { $0.string("usage") } == ["raid", "filesystem"])
        #expect(found.map { $0.string("uuid") } == [arrayUUID, fileSystem])
        #expect(found.map { $0.string("label") } == ["host:0", label])
    }

    @Test func `a server's list shows both signatures`() throws {
        let server = try ServeProcess(disk.path)
        let row = cells(try blkferry("list", server.url("")).output)
        #expect(row.contains("linux_raid_member,ext4 (ambiguous)"), "\(row)")
        #expect(row.contains("host:0,\(label)"), "\(row)")
        let (_, json) = try blkferryJSON("list", server.url(""))
        let content = try #require(json.records("devices")?.first?.record("content"))
        #expect(content.string("state") == "ambiguous")
        let types = content.records("signatures")?.map { $0.string("type") }
        #expect(types == ["linux_raid_member", "ext4"])
    }

    @Test func `UUID= and LABEL= find a device by either signature, here and on a server`() throws {
        let server = try ServeProcess(disk.path)
        for selector in ["UUID=\(fileSystem)", "LABEL=\(label)", "UUID=\(arrayUUID)"] {
            for source in [selector, server.url(selector)] {
                let target = scratch.file("target")
                let sync = try blkferry("-q", source, target)
                #expect(sync.status == 0, "\(sync)")
                #expect(try areEqual(disk.path, target))
                try must("rm", target)
            }
        }
        let exporter = try ServeProcess("LABEL=\(label)")
        #expect(try blkferry("list", exporter.url("")).output.contains(disk.path))
    }

    @Test func `a second device with the hidden file system makes its UUID ambiguous`() throws {
        let twin = try LoopDevice(size: 16 << 20)
        try must("mkfs.ext4", "-q", "-U", fileSystem, twin.path)
        let result = try blkferry("verify", "UUID=\(fileSystem)", scratch.file("image"))
        #expect(result.status == 2, "\(result)")
        #expect(result.errors.contains(disk.path) && result.errors.contains(twin.path))
    }
}
