// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import DeviceProbe
import Foundation
import LinuxIO
import TestSupport
import Testing

/// What a larger target has behind the replica.
@Suite(.enabled(if: isRoot, "loop devices need root"), .blocking, .timeLimit(.minutes(60)))
struct LeftBehindTests {
    struct Left: CustomTestStringConvertible {
        var testDescription: String
        var make: @Sendable (String) throws -> Void
        var name: String
    }

    static let (set, one) = (UUID(), UUID())
    static let left: [Left] = [
        Left(
            testDescription: "md 0.90", make: { try Superblocks.md090($0, uuid: set, member: 0) },
            name: "linux_raid_member UUID="),
        Left(
            testDescription: "md 1.0",
            make: { try Superblocks.md1($0, minor: 0, set: set, device: one) },
            name: "linux_raid_member \"host:0\" UUID="),
        Left(
            testDescription: "md 0.90 and 1.0",
            make: {
                try Superblocks.md090($0, uuid: set, member: 0)
                try Superblocks.md1($0, minor: 0, set: set, device: one)
            }, name: "linux_raid_member"),
        Left(
            testDescription: "ZFS", make: { try Superblocks.zfs($0, pool: 1, device: 2) },
            name: "zfs_member \"tank\" UUID=1 UUID_SUB=2"),
        Left(
            testDescription: "DDF", make: { try Superblocks.ddf($0, group: "LSI     01234567") },
            name: "ddf_raid_member"),
        Left(
            testDescription: "the backup of a GPT",
            make: {
                try must("sgdisk", "-n", "1:0:+8M", $0)
                try Superblocks.put([UInt8](repeating: 0, count: 40 * 512), at: 0, in: $0)
            }, name: "backup gpt partition table UUID="),
    ]

    @Test(arguments: left)
    func `a signature behind the source's end is named, and removed with --overwrite`(_ left: Left)
        throws
    {
        let scratch = try ScratchDirectory()
        let source = try scratch.sparseFile("source", size: 16 * MiB)
        let target = try scratch.sparseFile("target", size: 80 * MiB)
        try must("mkfs.ext4", "-q", "-F", source)
        try left.make(target)
        // libblkid looks for ZFS from 64 MiB on. The rest is a replica already.
        try must("dd", "if=\(source)", "of=\(target)", "bs=1M", "conv=notrunc", "status=none")
        let facts = try openSource(source).facts
        var policy = GatePolicy(sizePolicy: .prefix)
        let no = try refusal(target, source: facts, policy: policy)
        #expect(no.cause == .signature)
        #expect(no.reason.contains(left.name))
        #expect(no.reason.hasSuffix("behind the source's end, which would be lost"))
        policy.overwrite = true
        do {
            let admitted = try SafetyGate.admit(target, source: facts, policy: policy)
            #expect(admitted.leftovers.allSatisfy { $0.offset >= 16 * MiB && $0.end <= 80 * MiB })
            #expect(
                admitted.warnings.contains { $0.contains("behind the source's end is removed") })
            for range in admitted.leftovers {
                try admitted.device.apply(
                    Patch([UInt8](repeating: 0, count: range.length), at: range.offset))
            }
            try admitted.device.flush()
        }
        let found = try must("blkid", "-p", "-o", "value", "-s", "TYPE", target)
        #expect(found == "ext4\n" || found == "ext4")
        policy.overwrite = false
        let again = try SafetyGate.admit(target, source: facts, policy: policy)
        #expect(again.leftovers == [])
    }

    @Test func `the refusal of a target that fails at its end names its content`() throws {
        let loop = try LoopDevice(size: 16 * MiB)
        try makeExt4(loop.path, uuid: freshUUID(), label: "precious")
        // Reads beyond the end of the shrunken file fail with EIO.
        try must("truncate", "-s", "\(16 * MiB - 4096)", loop.backingFile)
        try must("blockdev", "--flushbufs", loop.path)
        let no = try refusal(loop.path, source: facts(size: 16 * MiB), comparing: 4096)
        #expect(no.reason.hasPrefix("it holds ext4 \"precious\" UUID="))
        #expect(no.reason.contains("and its other content cannot be determined"))
    }

    @Test func `a source that fails at its end still proves its replica`() throws {
        let loop = try LoopDevice(size: 16 * MiB)
        let scratch = try ScratchDirectory()
        let (copy, other) = (scratch.file("copy"), scratch.file("other"))
        try makeExt4(loop.path, uuid: freshUUID())
        try must("cp", loop.backingFile, copy)
        try must("truncate", "-s", "\(16 * MiB)", other)
        try makeExt4(other, uuid: freshUUID())
        // A superblock where the source cannot be read proves nothing and contradicts nothing.
        try Superblocks.md1(copy, minor: 0, set: Self.set, device: Self.one)
        try must("truncate", "-s", "\(16 * MiB - 8192)", loop.backingFile)
        try must("blockdev", "--flushbufs", loop.path)
        let facts = try openSource(loop.path).facts
        guard case .partial = facts.content else {
            Issue.record("\(facts.content)")
            return
        }
        _ = try SafetyGate.admit(copy, source: facts, policy: GatePolicy())
        #expect(try refusal(other, source: facts).cause == .signature)
        try must("wipefs", "-q", "-a", "-t", "ext4", copy)
        #expect(try refusal(copy, source: facts).reason.contains("cannot be read"))
    }
}
