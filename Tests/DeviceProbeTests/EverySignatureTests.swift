// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import DeviceProbe
import Foundation
import LinuxIO
import TestSupport
import Testing

/// What the gate makes of two images, each made by commands and superblocks.
@Suite(.blocking, .timeLimit(.minutes(60)))
struct EverySignatureTests {
    typealias Make = @Sendable (String) throws -> Void

    /// Two images that are no replicas of each other, and what the refusal has to name.
    struct Foreign: CustomTestStringConvertible {
        var testDescription: String
        var mebibytes = 64
        var source: Make
        var target: Make
        var names: [String]
    }

    static let (set, one, two) = (UUID(), UUID(), UUID())
    static let fileSystem = UUID()
    private static func ext4(_ path: String, _ label: String) throws {
        try must("mkfs.ext4", "-q", "-F", "-L", label, path)
    }

    static let foreign: [Foreign] = [
        Foreign(
            testDescription: "members of one array of metadata 0.90",
            source: { try Superblocks.md090($0, uuid: set, member: 0) },
            target: { try Superblocks.md090($0, uuid: set, member: 1) },
            names: ["linux_raid_member UUID="]),
        Foreign(
            testDescription: "a file system with a stale superblock 0.90 that the source has too",
            source: {
                try ext4($0, "mine"); try Superblocks.md090($0, uuid: set, member: 0)
            },
            target: {
                try ext4($0, "PRECIOUS"); try Superblocks.md090($0, uuid: set, member: 0)
            },
            names: ["ext4 \"PRECIOUS\" UUID="]),
        Foreign(
            testDescription: "a file system with another stale superblock 0.90",
            source: {
                try ext4($0, "mine"); try Superblocks.md090($0, uuid: set, member: 0)
            },
            target: {
                try ext4($0, "PRECIOUS"); try Superblocks.md090($0, uuid: set, member: 1)
            },
            names: ["ext4 \"PRECIOUS\" UUID=", "linux_raid_member UUID=", "contradictory"]),
        Foreign(
            testDescription: "a file system with a stale superblock 1.0 that the source has too",
            source: {
                try ext4($0, "mine")
                try Superblocks.md1($0, minor: 0, set: set, device: one)
            },
            target: {
                try ext4($0, "PRECIOUS")
                try Superblocks.md1($0, minor: 0, set: set, device: one)
            }, names: ["ext4 \"PRECIOUS\" UUID="]),
        Foreign(
            testDescription: "a file system over a stale superblock 1.2, and one that is 1.2 alone",
            source: { try Superblocks.md1($0, minor: 2, set: set, device: one) },
            target: {
                try ext4($0, "PRECIOUS")
                try Superblocks.md1($0, minor: 2, set: set, device: one)
            }, names: ["ext4 \"PRECIOUS\" UUID="]),
        Foreign(
            testDescription: "two superblocks of one array, and the source has one of them",
            source: { try Superblocks.md1($0, minor: 1, set: set, device: one) },
            target: {
                try Superblocks.md1($0, minor: 1, set: set, device: one)
                try Superblocks.md1($0, minor: 0, set: set, device: two)
            }, names: ["UUID_SUB=\(two.uuidString.lowercased())"]),
        Foreign(
            testDescription: "members of a DDF group",
            source: { try Superblocks.ddf($0, group: "LSI     0123456789abcdef") },
            target: {
                try Superblocks.ddf($0, group: "LSI     0123456789abcdef")
                try Superblocks.put([1], at: 4096, in: $0)
            }, names: ["ddf_raid_member"]),
        Foreign(
            testDescription: "a partition table with a stale superblock that the source has too",
            source: { try Superblocks.md090($0, uuid: set, member: 0) },
            target: {
                try must("sgdisk", "-n", "1:0:+16M", "-c", "1:PRECIOUS", $0)
                try Superblocks.md090($0, uuid: set, member: 0)
            }, names: ["gpt partition table UUID=", "\"PRECIOUS\""]),
        Foreign(
            testDescription: "devices of one ZFS pool",
            source: { try Superblocks.zfs($0, pool: 123, device: 456, labels: [0, 1, 2, 3]) },
            target: { try Superblocks.zfs($0, pool: 123, device: 457, labels: [0, 1, 2, 3]) },
            names: ["zfs_member", "UUID_SUB=457"]),
        Foreign(
            testDescription: "a file system with old ZFS labels that the source has too",
            source: { try Superblocks.zfs($0, pool: 123, device: 456) },
            target: {
                try ext4($0, "PRECIOUS"); try Superblocks.zfs($0, pool: 123, device: 456)
            },
            names: ["ext4 \"PRECIOUS\" UUID="]),
        Foreign(
            testDescription: "an XFS that stores a LUKS image of the source's UUID", mebibytes: 320,
            source: { try Superblocks.luks2($0, uuid: set) },
            target: {
                try must("mkfs.xfs", "-q", "-L", "PRECIOUS", $0)
                try Superblocks.luks2Secondary($0, uuid: set, at: 0x4000)
            }, names: ["xfs \"PRECIOUS\" UUID="]),
        Foreign(
            testDescription: "a secondary LUKS header of the source's UUID within something else",
            source: { try Superblocks.luks2($0, uuid: set) },
            target: { try Superblocks.luks2Secondary($0, uuid: set, at: 0x8000) },
            names: ["crypto_LUKS UUID="]),
        Foreign(
            testDescription: "another squashfs", source: { try Superblocks.squashfs($0, time: 1) },
            target: { try Superblocks.squashfs($0, time: 2) }, names: ["squashfs"]),
        Foreign(
            testDescription: "another BitLocker volume of the same size",
            source: { try Superblocks.bitLocker($0, volume: one) },
            target: { try Superblocks.bitLocker($0, volume: two) }, names: ["BitLocker"]),
        Foreign(
            testDescription: "DOS tables without identifier that differ",
            source: { try must("sfdisk", "-q", $0, input: "label: dos\nlabel-id: 0\n,16M\n") },
            target: { try must("sfdisk", "-q", $0, input: "label: dos\nlabel-id: 0\n,17M\n") },
            names: ["dos partition table with partitions 1"]),
        Foreign(
            testDescription: "DOS tables without identifier, equal, with other file systems",
            source: { try dosWithExt4($0, UUID()) }, target: { try dosWithExt4($0, UUID()) },
            names: ["dos partition table with partitions 1 ext4"]),
        Foreign(
            testDescription: "the backup of a GPT whose start is gone",
            source: { try ext4($0, "mine") },
            target: {
                try must("sgdisk", "-n", "1:0:+16M", $0)
                try Superblocks.put([UInt8](repeating: 0, count: 1 << 20), at: 0, in: $0)
            }, names: ["backup gpt partition table UUID="]),
        Foreign(
            testDescription: "swap space of another UUID",
            source: { try must("mkswap", "-q", $0) }, target: { try must("mkswap", "-q", $0) },
            names: ["swap UUID="]),
    ]

    private static func dosWithExt4(_ path: String, _ uuid: UUID) throws {
        try must("sfdisk", "-q", path, input: "label: dos\nlabel-id: 0\n2048,32768\n")
        try must(
            "mkfs.ext4", "-q", "-F", "-U", uuid.uuidString, "-E", "offset=1048576", path, "16M")
    }

    @Test(arguments: foreign) func `a signature that the source does not have is refused and named`(
        _ pair: Foreign
    ) throws {
        let scratch = try ScratchDirectory()
        let source = try scratch.sparseFile("source", size: pair.mebibytes * MiB)
        let target = try scratch.sparseFile("target", size: pair.mebibytes * MiB)
        try pair.source(source)
        try pair.target(target)
        let no = try refusal(target, source: try openSource(source).facts)
        #expect(no.cause == .signature)
        for name in pair.names { #expect(no.reason.contains(name)) }
        let admitted = try SafetyGate.admit(
            target, source: try openSource(source).facts, policy: GatePolicy(overwrite: true))
        #expect(admitted.sizeBefore == pair.mebibytes * MiB)
    }

    /// An image, and what may have happened to it since it was copied.
    struct Copied: CustomTestStringConvertible {
        var testDescription: String
        var mebibytes = 64
        var source: Make
        var since: Make = { _ in }
    }

    static let copies: [Copied] = [
        Copied(
            testDescription: "ext4 over old ZFS labels",
            source: {
                try ext4($0, "x"); try Superblocks.zfs($0, pool: 1, device: 2)
            }),
        Copied(
            testDescription: "ext4 under a stale superblock 0.90",
            source: {
                try ext4($0, "x"); try Superblocks.md090($0, uuid: set, member: 0)
            }),
        Copied(
            testDescription: "a member of metadata 1.0",
            source: { try Superblocks.md1($0, minor: 0, set: set, device: one) }),
        Copied(
            testDescription: "a member of metadata 1.1",
            source: { try Superblocks.md1($0, minor: 1, set: set, device: one) }),
        Copied(
            testDescription: "a member of metadata 1.2",
            source: { try Superblocks.md1($0, minor: 2, set: set, device: one) }),
        Copied(
            testDescription: "a member of a DDF group",
            source: { try Superblocks.ddf($0, group: "LSI     0123456789abcdef") }),
        Copied(
            testDescription: "a ZFS device that was written to",
            source: { try Superblocks.zfs($0, pool: 1, device: 2, labels: [0, 1, 2, 3]) },
            since: {
                try Superblocks.put([UInt8](repeating: 0, count: 1024), at: 128 << 10, in: $0)
            }),
        Copied(testDescription: "LUKS", source: { try Superblocks.luks2($0, uuid: set) }),
        Copied(testDescription: "squashfs", source: { try Superblocks.squashfs($0, time: 1) }),
        Copied(
            testDescription: "BitLocker", source: { try Superblocks.bitLocker($0, volume: one) }),
        Copied(
            testDescription: "a DOS table without identifier",
            source: { try dosWithExt4($0, UUID()) },
            since: { try Superblocks.put([1], at: 8 << 20, in: $0) }),
        Copied(
            testDescription: "a GPT", source: { try must("sgdisk", "-n", "1:0:+16M", $0) },
            since: { try must("sgdisk", "-n", "2:0:+16M", $0) }),
        Copied(
            testDescription: "ext3 that was made ext4",
            source: { try must("mkfs.ext3", "-q", "-F", $0) },
            since: { try must("tune2fs", "-O", "extents", $0) }),
        Copied(
            testDescription: "swap space after hibernation",
            source: { try must("mkswap", "-q", $0) },
            since: { try Superblocks.put(Array("S1SUSPEND\0".utf8), at: 4086, in: $0) }),
        Copied(
            testDescription: "btrfs over ext4", mebibytes: 128,
            source: {
                try must("mkfs.btrfs", "-q", $0)
                try must("mkfs.ext4", "-q", "-F", "\($0).ext4", "16M")
                let superblock = try Superblocks.bytes(of: "\($0).ext4", at: 1024, count: 1024)
                try Superblocks.put(superblock, at: 1024, in: $0)
            }),
    ]

    @Test(arguments: copies) func `a replica is admitted, whatever its signatures`(_ copy: Copied)
        throws
    {
        let scratch = try ScratchDirectory()
        let source = try scratch.sparseFile("source", size: copy.mebibytes * MiB)
        let target = scratch.file("target")
        try copy.source(source)
        try must("cp", "--sparse=always", source, target)
        try copy.since(source)
        let facts = try openSource(source).facts
        #expect(!facts.content.found.isEmpty)
        let admitted = try SafetyGate.admit(target, source: facts, policy: GatePolicy())
        #expect(admitted.warnings == [])
    }
}
