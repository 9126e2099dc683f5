// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import LinuxIO
import LogicalVolumes
import TestSupport
import Testing

@Suite struct VolumeSnapshotTests {
    private let origin: LogicalVolume
    private let target = "aa11"

    init() throws { origin = try ScriptedLVM.volume("root", tags: [], origin: nil) }

    private func tag(_ name: String, number: Int, target: String = "aa11") throws -> String {
        ReplicaRecord(
            of: try ScriptedLVM.volume(name, tags: []), target: target, mark: "b", seed: 1,
            root: "c", number: number
        ).tag
    }

    @Test func `snapshots that dead runs have left are removed, and nothing else`() throws {
        let boot = try String(contentsOfFile: "/proc/sys/kernel/random/boot_id", encoding: .utf8)
            .trimmingCharacters(in: .whitespacesAndNewlines)
        let stat = try String(contentsOfFile: "/proc/self/stat", encoding: .utf8)
        let fields = try #require(stat.split(separator: ")").last).split(separator: " ")
        let me = "\(boot).\(ProcessInfo.processInfo.processIdentifier).\(fields[19])"
        let other = "00000000-0000-0000-0000-000000000000"
        func own(_ name: String, _ owner: String) -> String {
            ScriptedLVM.json(
                named(name), tags: ["blkferry", "blkferry.owner=\(owner)"])
        }
        let dead = ["blkferry", "blkferry.owner=\(other).1.1"]
        let lvm = try ScriptedLVM([
            own("mine", me), own("another-boot", "\(other).1.1"), own("ended", "\(boot).4194304.7"),
            // The number of a process that lives was another one's before.
            own("number-again", "\(boot).1.999999999999"), own("odd", "x"),
            ScriptedLVM.json(named("users"), tags: ["blkferry.owner=\(other).1.1"]),
            ScriptedLVM.json(
                named("base"),
                tags: ["blkferry", try tag(named("base"), number: 1)]),
            ScriptedLVM.json(named("home"), tags: dead, origin: "home"),
            // LVM does not know any more whose snapshot it is.
            ScriptedLVM.json(
                named("orphan"), tags: dead + ["blkferry.source=U-root"], origin: nil),
            ScriptedLVM.json(
                named("homeless"), tags: dead + ["blkferry.source=U-home"], origin: nil),
            // Volumes with the tags that blkferry did not create.
            ScriptedLVM.json("root", tags: dead + ["blkferry.source=U-root"], origin: nil),
            ScriptedLVM.json("renamed", tags: dead + ["blkferry.source=U-root"]),
            ScriptedLVM.json("root.blkferry.mine", tags: dead),
            ScriptedLVM.json("root.blkferry.20261123T031500.7-old", tags: dead),
        ])
        let (removed, failures) = try VolumeSnapshot.removeLeftovers(of: origin, lvm.lvm())
        #expect(failures.isEmpty)
        #expect(
            removed
                == ["another-boot", "ended", "number-again", "odd", "orphan"].map {
                    "vg0/" + named($0)
                })
        #expect(lvm.changes == removed.map { "lvremove --force \($0)" })
    }

    @Test func `a leftover snapshot that cannot be removed is skipped`() throws {
        let tags = ["blkferry", "blkferry.owner=other.1.1"]
        let lvm = try ScriptedLVM(
            ["first", "second"].map { ScriptedLVM.json(named($0), tags: tags) })
        lvm.put("fails-lvremove", "  Logical volume is in use.\n")
        let (removed, failures) = try VolumeSnapshot.removeLeftovers(of: origin, lvm.lvm())
        #expect(
            removed.isEmpty
                && failures.map(\.object) == ["first", "second"].map { "vg0/" + named($0) })
        #expect(failures.allSatisfy { $0.reason.contains("in use") && $0.advice != nil })
    }

    @Test func `bases are removed but for the base that is kept`() throws {
        let former = ["blkferry", "blkferry.former=aa11"]
        let lvm = try ScriptedLVM([
            ScriptedLVM.json(named("former"), tags: former),
            ScriptedLVM.json(named("kept"), tags: former),
            ScriptedLVM.json(named("elsewhere"), tags: ["blkferry", "blkferry.former=bb"]),
            ScriptedLVM.json("root.blkferry.mine", tags: former),
        ])
        #expect(
            try VolumeSnapshot.removeBases(
                of: origin, for: target, besides: "U-" + named("kept"), lvm.lvm()) == [])
        #expect(lvm.changes == ["lvremove --force vg0/" + named("former")])
    }

    @Test func `the newest sound base comes first, and bases of other targets do not come`() throws
    {
        let lvm = try ScriptedLVM([
            // Volumes with the tags of a base that blkferry did not create as one.
            ScriptedLVM.json("renamed", tags: ["blkferry", try tag("renamed", number: 16)]),
            ScriptedLVM.json(named("former"), tags: ["blkferry", "blkferry.former=aa11"]),
            ScriptedLVM.json(
                named("first"), tags: ["blkferry", try tag(named("first"), number: 1)]),
            ScriptedLVM.json(
                named("newer"), tags: ["blkferry", try tag(named("newer"), number: 12)]),
            ScriptedLVM.json(
                named("elsewhere"),
                tags: ["blkferry", try tag(named("elsewhere"), number: 13, target: "bb")]),
            ScriptedLVM.json("users", tags: [try tag("users", number: 14)]),
            // A clone that has the tag of what it was made of.
            ScriptedLVM.json(
                named("cloned"), tags: ["blkferry", try tag(named("newer"), number: 15)]),
        ])
        let bases = try VolumeSnapshot.bases(of: origin, for: target, lvm.lvm())
        #expect(bases.prefix(2).map(\.name) == [named("newer"), named("first")])
        #expect(
            Set(bases.map(\.name)) == [
                named("newer"), named("first"), named("former"), named("cloned"),
            ])
        #expect(bases.dropFirst(2).allSatisfy { $0.replica(on: target) == nil })
    }

    @Test func `before a target is written, no snapshot is recorded any more as its replica`()
        throws
    {
        let (first, users) = (try tag(named("first"), number: 1), try tag("users", number: 2))
        let other = try tag(named("first"), number: 1, target: "bb")
        let history = try tag("history", number: 3)
        let lvm = try ScriptedLVM([
            ScriptedLVM.json(named("first"), tags: ["blkferry", first, other]),
            ScriptedLVM.json("users", tags: ["nightly", users]),
            ScriptedLVM.json(named("none"), tags: ["blkferry"]),
            // Of a replica that is a source itself: kept for its user.
            ScriptedLVM.json("history", tags: ["blkferry", "blkferry.of=U-root", history]),
        ])
        let bases = try VolumeSnapshot.bases(of: origin, for: target, lvm.lvm())
        #expect(bases.map(\.name) == [named("first")])
        try VolumeSnapshot.invalidateRecords(of: origin, for: target, lvm.lvm())
        #expect(
            lvm.changes == [
                "lvchange --deltag \(first) --addtag blkferry.former=aa11 vg0/\(named("first"))",
                "lvchange --deltag \(users) vg0/users",
                "lvchange --deltag \(history) vg0/history",
            ])
    }

    @Test func `the name of a snapshot is cut so that the device mapper has room for it`() throws {
        let lvm = try ScriptedLVM()
        var long = origin
        long.group = "a-b"
        long.name = String(repeating: "x-", count: 60)
        #expect(throws: IOError.self) { try VolumeSnapshot(of: long, lvm.lvm()) }
        let words = lvm.changes.first?.split(separator: " ").map(String.init) ?? []
        let name = try #require(words.drop { $0 != "--name" }.dropFirst().first)
        #expect(name.hasPrefix("x-x-") && isNameOfOwnSnapshot(name))
        // Of 127 characters, -real takes five. A hyphen takes two.
        #expect([121, 122].contains(VolumeName(group: "a-b", volume: name).mapperName.count))
    }

    @Test func `LVM's message is the reason`() throws {
        let lvm = try ScriptedLVM([ScriptedLVM.json("first", tags: [try tag("first", number: 1)])])
        lvm.put("fails-lvchange", "  WARNING: old\n  Volume group vg0 is exported\n")
        #expect {
            try VolumeSnapshot.invalidateRecords(of: origin, for: target, lvm.lvm())
        } throws: {
            "\($0)" == "vg0/first: change its tags: Volume group vg0 is exported"
        }
        lvm.put(
            "fails-lvchange",
            "  Volume group \"vg0\" not found\n  Cannot process volume group vg0\n")
        #expect {
            try VolumeSnapshot.invalidateRecords(of: origin, for: target, lvm.lvm())
        } throws: {
            "\($0)" == "vg0/first: change its tags: Volume group \"vg0\" not found"
        }
        #expect { try LVM(program: "no-such-lvm") } throws: {
            ($0 as? IOError)?.advice == "Install lvm2."
        }
    }

    @Test func `a snapshot of another volume is no base`() throws {
        let lvm = try ScriptedLVM([ScriptedLVM.json("of-home", tags: [], origin: "home")])
        #expect(throws: IOError.self) { try lvm.lvm().snapshot("of-home", of: origin) }
        lvm.put([ScriptedLVM.json("monday", tags: [])])
        #expect(try lvm.lvm().snapshot("monday", of: origin).uuid == "U-monday")
        let tuesday = try ScriptedLVM.volume("tuesday", tags: [])
        #expect(try lvm.lvm().snapshot("vg0/monday", of: tuesday).uuid == "U-monday")
        #expect(throws: IOError.self) { try origin.changeMapSource(since: origin) }
        #expect(throws: IOError.self) {
            var other = tuesday
            other.groupUUID = "H"
            _ = try other.changeMapSource(since: ScriptedLVM.volume("monday", tags: []))
        }
    }

    @Test func `only a base that blkferry made has to be as it was made`() throws {
        let new = try ScriptedLVM.volume("new", tags: [])
        let bases: [(name: String, tags: [String], mapped: Int?)] = [
            (named("root"), ["blkferry"], 65536), (named("root"), [], nil),
            ("renamed", ["blkferry"], nil), (named("root"), ["blkferry", "blkferry.of=aa"], nil),
        ]
        for (name, tags, mapped) in bases {
            let base = try ScriptedLVM.volume(name, tags: tags)
            #expect(
                try new.changeMapSource(since: base, mappedThen: 65536)
                    == .thin(pool: "pool", old: 2, new: 2, mappedThen: mapped))
        }
    }

    @Test(arguments: [
        (VolumeSnapshot.Size.percent(10), 8 << 20), (.percent(100), 64 << 20), (.bytes(1), 4 << 20),
        (.bytes(5 << 20), 8 << 20),
    ])
    func `room for a snapshot is whole extents, at least one`(size: VolumeSnapshot.Size, bytes: Int)
    {
        #expect(size.bytes(of: origin) == bytes)
    }
}

/// As blkferry names its snapshots of a volume.
private func named(_ volume: String) -> String { "\(volume).blkferry.20261123T031500.7" }

@Suite(.blocking) struct RunLockTests {
    @Test func `one of two runs has the lock, until it ends`() throws {
        let scratch = try ScratchDirectory()
        var first = try RunLock("job", in: scratch.path)
        #expect(first != nil)
        #expect(try RunLock("job", in: scratch.path) == nil)
        #expect(try RunLock("another", in: scratch.path) != nil)
        withExtendedLifetime(first) {}
        first = nil
        #expect(try RunLock("job", in: scratch.path) != nil)
    }

    @Test func `a lock that is a link, or in a missing directory, is refused`() throws {
        let scratch = try ScratchDirectory()
        try must("ln", "-s", "/etc/hostname", scratch.file("job.lock"))
        #expect(throws: IOError.self) { try RunLock("job", in: scratch.path) }
        #expect(throws: IOError.self) { try RunLock("job", in: scratch.file("none/missing")) }
    }

    @Test func `the lock's directory is created for its user alone`() throws {
        let scratch = try ScratchDirectory()
        let lock = try RunLock("job", in: scratch.file("new"))
        #expect(try must("stat", "-c", "%a", scratch.file("new")) == "700\n")
        withExtendedLifetime(lock) {}
    }
}
