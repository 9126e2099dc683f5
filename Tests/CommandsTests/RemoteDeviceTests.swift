// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// Block devices on a server, and the safety gate there.
@Suite(.enabled(if: isRoot, "loop devices need root"), .blocking, .timeLimit(.minutes(60)))
struct RemoteDeviceTests {
    private let size = 16 << 20
    private let source: LoopDevice

    init() throws {
        source = try LoopDevice(size: size)
        try must("mkfs.ext4", "-q", "-L", "one", source.path)
        try fill(source.path, seed: 1, size: 2 << 20, offset: 12 << 20)
    }

    @Test(arguments: [512, 4096])
    func `a device is copied to a device on a server and back`(sector: Int) throws {
        let there = try LoopDevice(size: size, sectorSize: sector)
        let back = try LoopDevice(size: size, sectorSize: sector)
        let server = try ServeProcess("\(there.path):rw")
        let push = try blkferry("--verify", source.path, server.url(there.path))
        #expect(push.status == 0, "\(push)")
        #expect(try areEqual(source.path, there.path))
        let pull = try blkferry("--verify", server.url(there.path), back.path)
        #expect(pull.status == 0, "\(pull)")
        #expect(try areEqual(source.path, back.path))
        let again = try blkferryJSON("-b", "512", source.path, server.url(there.path))
        #expect(again.json.int("written") == 0 && again.json.int("zeroed") == 0)
        #expect(again.json.int("blockSize") == sector)
        #expect(try blkferry("verify", server.url(there.path), back.path).status == 0)
        try overwrite(back.path, [1], at: 5 << 20)
        #expect(try blkferry("verify", server.url(there.path), back.path).status == 1)
    }

    @Test func `the gate's refusals come from the server in full and end with 2`() throws {
        let foreign = try LoopDevice(size: size)
        try must("mkfs.ext4", "-q", "-L", "precious", foreign.path)
        // For reading, or it would write by itself.
        let mount = try LoopMount(size: size, options: "ro")
        let readOnly = try LoopDevice(size: size, readOnly: true)
        let smaller = try LoopDevice(size: size / 2)
        let larger = try LoopDevice(size: size * 2)
        let mine = try LoopDevice(size: size)
        let targets = [foreign, mount.loop, readOnly, smaller, larger, source]
        let server = try ServeProcess(
            "\(foreign.path):rw", "\(mount.loop.path):rw", "\(readOnly.path):rw",
            "\(smaller.path):rw", "\(larger.path):rw", "\(source.path):rw", mine.path)
        let words = [
            ["ext4", "\"precious\"", "--overwrite"], ["mounted on \(mount.path)"], ["read-only"],
            ["\(size)", "\(size / 2)"], ["--size-policy prefix"], ["is the source"],
            ["read-only", ":rw"],
        ]
        for (target, words) in zip(targets + [mine], words) {
            let before = try must("sha256sum", target.path)
            let url = server.url(target.path)
            for arguments in [[], ["--dry-run"]] {
                // An export for reading cannot be written, but shows what would be done.
                if target === mine && !arguments.isEmpty { continue }
                let result = try RunningProgram(
                    [program, "sync"] + arguments + [source.path, url]
                ).wait()
                #expect(result.status == 2, "\(target.path): \(result)")
                #expect(result.errors.hasPrefix("blkferry: \(url): refused: "), "\(result.errors)")
                for word in words { #expect(result.errors.contains(word), "\(result.errors)") }
            }
            #expect(try must("sha256sum", target.path) == before)
        }
        let (refusal, json) = try blkferryJSON(source.path, server.url(foreign.path))
        #expect(refusal.status == 2)
        #expect(json.int("exitStatus") == 2 && json.string("cause") == "signature", "\(refusal)")
        #expect(try blkferry("--overwrite", source.path, server.url(foreign.path)).status == 0)
        #expect(try areEqual(source.path, foreign.path))
        #expect(try blkferry(source.path, server.url(foreign.path)).status == 0, "a replica")
    }

    @Test func `a mounted local device is refused as the target of a pull`() throws {
        let mount = try LoopMount(size: size)
        let server = try ServeProcess(source.path)
        let result = try blkferry(server.url(source.path), mount.loop.path)
        #expect(result.status == 2)
        #expect(result.errors.contains("mounted on \(mount.path)"))
    }

    @Test func `tags select an export, and a tag of two devices is refused with both`() throws {
        let twin = try LoopDevice(size: size)
        try must("dd", "if=\(source.path)", "of=\(twin.path)", "bs=1M", "status=none")
        let uuid = try must("blkid", "-p", "-s", "UUID", "-o", "value", source.path)
            .split(separator: "\n")[0]
        let target = try LoopDevice(size: size)
        let alone = try ServeProcess(source.path)
        for tag in ["UUID=\(uuid)", "LABEL=one"] {
            #expect(try blkferry(alone.url(tag), target.path).status == 0, "\(tag)")
            #expect(try areEqual(source.path, target.path))
        }
        let both = try ServeProcess("\(source.path):rw", "\(twin.path):rw")
        for arguments in [
            [both.url("UUID=\(uuid)"), target.path], [target.path, both.url("UUID=\(uuid)")],
        ] {
            let result = try RunningProgram([program] + arguments).wait()
            #expect(result.status == 2, "\(result)")
            #expect(result.errors.contains(source.path) && result.errors.contains(twin.path))
        }
    }

    @Test(.noSilentDisk) func `a partition is selected by PARTUUID and PARTLABEL`() throws {
        let disk = try LoopDevice(size: size * 2, partitions: true)
        let script = "label: gpt\nstart=2048, size=\(size / 512), name=data\n"
        try must("sfdisk", "-q", disk.path, input: script)
        try must("partx", "--update", disk.path)
        defer { _ = try? must("partx", "--delete", disk.path) }
        let partition = "\(disk.path)p1"
        let uuid = try must("blkid", "-p", "-s", "PART_ENTRY_UUID", "-o", "value", partition)
            .split(separator: "\n")[0]
        let server = try ServeProcess("\(partition):rw")
        for tag in ["PARTUUID=\(uuid)", "PARTLABEL=data"] {
            let result = try blkferry("--verify", source.path, server.url(tag))
            #expect(result.status == 0, "\(tag): \(result)")
        }
        #expect(try areEqual(source.path, partition))
    }

    @Test func `a server on IPv6 is reached by an address in brackets`() throws {
        let target = try LoopDevice(size: size)
        let server = try ServeProcess("\(target.path):rw", on: "[::1]")
        let result = try blkferry("--verify", source.path, server.url(target.path))
        #expect(result.status == 0, "\(result)")
        #expect(try areEqual(source.path, target.path))
        #expect(try blkferry("list", "http://[::1]:\(server.port)").status == 0)
    }

    @Test func `bad blocks of either side are skipped on request, and only then`() throws {
        for isPush in [true, false] {
            let bad = try LoopDevice(size: size)
            let target = try LoopDevice(size: size)
            try fill(bad.path, seed: 3, size: size)
            try fill(target.path, seed: 4, size: size)
            let good = try [UInt8](contentsOf: bad.path)
            let old = try [UInt8](contentsOf: target.path)
            // A loop device answers EIO where its file no longer is.
            let end = size - (1 << 20) - 8192
            try must("truncate", "-s", "\(end)", bad.backingFile)
            let server = try ServeProcess("\(bad.path)", "\(target.path):rw")
            let from = isPush ? bad.path : server.url(bad.path)
            let to = isPush ? server.url(target.path) : target.path
            let failed = try blkferry(from, to)
            #expect(failed.status == 3, "\(failed)")
            #expect(failed.errors.contains("\(from): read at offset "), "\(failed)")
            #expect(failed.errors.contains("--skip-unreadable"), "\(failed)")

            let (result, json) = try blkferryJSON("--skip-unreadable", from, to)
            #expect(result.status == 6, "\(result)")
            #expect(json.int("compared") == size)
            let errors = try #require(json.record("readErrors"))
            #expect(errors.int("unreadable") == size - end)
            #expect(errors.records("ranges")?.map { $0.int("offset") } == [end])
            let bytes = try [UInt8](contentsOf: target.path)
            #expect(bytes.prefix(end) == good.prefix(end))
            #expect(bytes.dropFirst(end) == old.dropFirst(end))
        }
    }
}
