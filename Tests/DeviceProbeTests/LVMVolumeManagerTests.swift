// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import DeviceProbe
import Foundation
import LinuxIO
import LogicalVolumes
import Synchronization
import TestSupport
import Testing

private func place(_ text: String) throws -> VolumePlace { try #require(VolumePlace(text)) }

/// How a target is refused.
private func refusal(_ body: () throws(IOError) -> Void) -> IOError? {
    do throws(IOError) { try body() } catch { return error.cause == nil ? nil : error }
    return nil
}

private let thin = [
    "lv_name": "root", "segtype": "thin", "pool_lv": "pool", "lv_attr": "Vwi-a-tz--",
]
private let pool = ["lv_name": "pool", "segtype": "thin-pool", "lv_attr": "twi-aotz--"]

@Suite(.blocking, .timeLimit(.minutes(60))) struct LVMVolumeManagerTests {
    @Test func `a linear volume is created in whole extents`() throws {
        let lvm = try ScriptedGroup(volumes: [])
        // It is not found afterwards, since the script makes none.
        #expect(throws: IOError.self) {
            try lvm.all.create(try place("vg0/new"), size: 5_000_000, as: "T")
        }
        #expect(
            lvm.calls == [
                "lvcreate --type linear --wipesignatures y --size 8388608b --name new vg0",
                "lvremove --force vg0/new",
            ])
        #expect(try lvm.all.sizeOfNew(try place("vg0/new"), size: 1, as: "T") == 4 << 20)
        #expect(lvm.calls.count == 2)
    }

    @Test func `a thin volume is created in its pool, which may be smaller`() throws {
        let lvm = try ScriptedGroup(free: 0, volumes: [pool])
        #expect(throws: IOError.self) {
            try lvm.all.create(try place("vg0/new@pool"), size: 5_000_000, as: "T")
        }
        #expect(
            lvm.calls.first
                == "lvcreate --type thin --virtualsize 8388608b --thinpool pool --name new vg0")
        #expect(throws: IOError.self) {
            try lvm.all.sizeOfNew(try place("vg0/new@other"), size: 1, as: "T")
        }
    }

    @Test func `a full group and a taken name are refusals, a missing group is a failure`() throws {
        let lvm = try ScriptedGroup(free: 4 << 20, volumes: [["lv_name": "root"]])
        let (new, root) = (try place("vg0/new"), try place("vg0/root"))
        let full = refusal { () throws(IOError) in
            _ = try lvm.all.create(new, size: 5_000_000, as: "T")
        }
        #expect(full?.cause == .noSpace)
        #expect(full?.reason == "vg0 has 4194304 bytes that are free, and 8388608 are needed")
        let endless = refusal { () throws(IOError) in
            _ = try lvm.all.create(new, size: .max, as: "T")
        }
        #expect(endless?.cause == .noSpace)
        let taken = refusal { () throws(IOError) in
            _ = try lvm.all.create(root, size: 1, as: "T")
        }
        #expect(taken?.cause == .nameTaken)
        do throws(IOError) {
            let place = VolumePlace("vg9/new") ?? root
            _ = try lvm.all.sizeOfNew(place, size: 1, as: "T")
            Issue.record("there is such a group")
        } catch {
            #expect(error.description == "T: create: Volume group \"vg9\" not found")
        }
        #expect(lvm.calls == [])
    }

    @Test func `a volume is grown and cut, also by an LVM without --fs`() throws {
        let lvm = try ScriptedGroup(volumes: [["lv_name": "root"]])
        let volume = try lvm.volume()
        try volume.resize(to: 16 << 20)
        try volume.resize(to: 4 << 20)
        try lvm.refuse("--fs")
        try volume.resize(to: 4 << 20)
        let cut = "lvreduce --force --size 4194304b vg0/root"
        let cutAsIs = "lvreduce --fs ignore --force --size 4194304b vg0/root"
        #expect(lvm.calls == ["lvextend --size 16777216b vg0/root", cutAsIs, cutAsIs, cut])
        try lvm.refuse("vg0/root")
        let error = #expect(throws: IOError.self) { try volume.resize(to: 4 << 20) }
        #expect(error?.reason == "It does not go.")
    }

    @Test func `sizes are extents for each stripe, and mirrors have no stripes`() throws {
        for (type, stripes, unit) in [
            ("linear", "1", 4 << 20), ("striped", "2", 8 << 20), ("raid5", "3", 12 << 20),
            ("raid10", "2", 8 << 20), ("raid1", "2", 4 << 20), ("mirror", "2", 4 << 20),
        ] {
            let lvm = try ScriptedGroup(volumes: [
                ["lv_name": "root", "segtype": type, "data_stripes": stripes]
            ])
            #expect(try lvm.volume().sizeUnit == unit, "\(type)")
        }
    }

    @Test func `the refusal of a full group names an older snapshot`() throws {
        let old = [
            "lv_name": "day-20260101T000000Z", "lv_tags": "blkferry,blkferry.history=day",
            "origin": "root", "origin_uuid": "root",
        ]
        let lvm = try ScriptedGroup(free: 0, volumes: [["lv_name": "root"], old])
        let volume = try lvm.all.volume(at: "vg0/root")
        let no = refusal { () throws(IOError) in
            _ = try volume.take(TargetSnapshot(name: "day", keeps: 1), as: "T")
        }
        #expect(no?.cause == .noSpace && lvm.calls == [])
        #expect(no?.advice?.contains("such as vg0/day-20260101T000000Z") == true)
    }

    @Test func `of two snapshots at once one takes the next second, and a taken name is refused`()
        throws
    {
        let lvm = try ScriptedGroup(volumes: [thin])
        let volume = try lvm.volume()
        let wish = TargetSnapshot(name: "day", keeps: 7)
        // What another one has made is seen before, or by LVM alone.
        try lvm.refuse(count: 2, "Logical Volume \"day\" already exists in volume group \"vg0\"")
        let name = try volume.take(wish, as: "T")
        let tried = lvm.calls.compactMap { $0.firstMatch(of: /day-[0-9TZ]+/)?.output }
        #expect(tried.count == 3 && tried == tried.sorted() && Set(tried).count == 3)
        #expect(name == "vg0/\(tried.last ?? "")")
        try lvm.refuse(count: 1, "Logical Volume \"day\" already exists in volume group \"vg0\"")
        let no = refusal { () throws(IOError) in
            _ = try volume.take(TargetSnapshot(name: "day"), as: "T")
        }
        #expect(no?.cause == .nameTaken && no?.advice?.contains("lvremove vg0/day") == true)
        let all = try ScriptedGroup(
            volumes: [thin] + tried.map { ["lv_name": String($0), "origin": "other"] })
        let next = try all.volume().take(wish, as: "T")
        #expect(!tried.contains { next.hasSuffix($0) })
    }

    @Test func `a full pool is a refusal, as a full group is, and names an older snapshot`() throws
    {
        let old = [
            "lv_name": "day-20260101T000000Z", "lv_tags": "blkferry,blkferry.history=day",
            "origin": "root", "origin_uuid": "root",
        ]
        let lvm = try ScriptedGroup(volumes: [thin, old])
        try lvm.refuse(
            count: 1,
            "Cannot create new thin volume, free space in thin pool vg0/pool reached threshold.")
        let volume = try lvm.all.volume(at: "vg0/root")
        let no = refusal { () throws(IOError) in
            _ = try volume.take(TargetSnapshot(name: "day", keeps: 1), as: "T")
        }
        #expect(no?.cause == .noSpace && no?.reason.contains("reached threshold") == true)
        #expect(no?.advice?.contains("such as vg0/day-20260101T000000Z") == true)
        #expect(no?.advice?.hasSuffix("lvextend --size SIZE vg0/pool") == true)
    }

    @Test func `LVM's lock is not waited for longer than the limit`() throws {
        let scratch = try ScratchDirectory()
        try must(
            "sh", "-c", "cat >\"$0\" && chmod +x \"$0\"", scratch.file("lvm"),
            input: "#!/bin/sh\nexec sleep 600\n")
        let volumes = LVMVolumeManager(program: scratch.file("lvm"), patience: .milliseconds(200))
        let error = #expect(throws: IOError.self) { try volumes.volume(at: "vg0/root") }
        #expect(error?.reason == "timed out waiting for LVM")
        #expect(throws: IOError.self) {
            try volumes.create(try place("vg0/new"), size: 1, as: "T")
        }
    }

    @Test func `a history is rotated however long the run was, also after a late signal`() throws {
        let old = [
            "lv_name": "day-20260101T000000Z", "lv_tags": "blkferry,blkferry.history=day",
            "origin": "root", "origin_uuid": "root",
        ]
        let wish = TargetSnapshot(name: "day", keeps: 1)
        let lvm = try ScriptedGroup(volumes: [thin, old])
        // As short a limit as this machine keeps.
        var limit = 1.0
        var found: (any ManagedVolume)?
        repeat {
            limit *= 2
            found = try? lvm.all(within: .seconds(limit)).volume(at: "vg0/root")
        } while found == nil && limit < 60
        let volume = try #require(found)
        Thread.sleep(forTimeInterval: limit + 0.1)
        #expect(volume.removeOlder(than: "vg0/day-20260102T000000Z", of: wish) == [])
        #expect(lvm.calls == ["lvremove --force vg0/day-20260101T000000Z"])
        let isCancelled = Atomic(false)
        let cancelled = LVMVolumeManager(program: lvm.scratch.file("lvm")) {
            isCancelled.load(ordering: .relaxed)
        }
        let target = try cancelled.volume(at: "vg0/root")
        isCancelled.store(true, ordering: .relaxed)
        #expect(target.removeOlder(than: "vg0/day-20260102T000000Z", of: wish) == [])
        #expect(lvm.calls.count == 2)
    }

    @Test func `an obstacle to resizing a volume is known before`() throws {
        func obstacle(
            _ fields: [String: String], to size: Int = 16 << 20, free: Int = 100 << 20,
            withSnapshot: Bool = false
        ) throws -> String? {
            let fields = ["lv_name": "root"].merging(fields) { $1 }
            return try ScriptedGroup(free: free, volumes: [fields]).volume()
                .obstacle(toResizing: size, withSnapshot: withSnapshot)?.reason
        }
        #expect(try obstacle([:]) == nil)
        #expect(try obstacle([:], withSnapshot: true)?.contains("once it has a snapshot") == true)
        #expect(try obstacle(thin, free: 0, withSnapshot: true) == nil)
        #expect(try obstacle([:], free: 4 << 20)?.contains("8388608 are needed") == true)
        #expect(try obstacle([:], to: 4 << 20, free: 0) == nil)
        #expect(
            try obstacle(["lv_attr": "owi-aos---"])?.contains("as long as it has snapshots") == true
        )
        #expect(
            try obstacle([
                "lv_attr": "swi-aos---", "origin": "base", "origin_size": "8388608",
            ])?.contains("classic snapshot") == true)
    }

    @Test func `a classic snapshot has room for all of the volume, a thin one needs none`() throws {
        let lvm = try ScriptedGroup(free: 12 << 20, volumes: [["lv_name": "root"]])
        let wish = TargetSnapshot(name: "before")
        #expect(try lvm.volume().take(wish, as: "T") == "vg0/before")
        #expect(try lvm.volume().removeOlder(than: "vg0/before", of: wish) == [])
        #expect(
            lvm.calls == [
                "lvcreate --snapshot --name before --addtag blkferry --addtag blkferry.of=root "
                    + "--chunksize 4096b --size 12582912b vg0/root"
            ])
        let full = try ScriptedGroup(free: 8 << 20, volumes: [["lv_name": "root"]])
        let volume = try full.volume()
        let no = refusal { () throws(IOError) in
            _ = try volume.take(TargetSnapshot(name: "before"), as: "T")
        }
        #expect(no?.cause == .noSpace && full.calls == [])
        let small = try ScriptedGroup(free: 0, volumes: [thin])
        _ = try small.volume().take(TargetSnapshot(name: "before"), as: "T")
        #expect(
            small.calls == [
                "lvcreate --snapshot --name before --addtag blkferry --addtag blkferry.of=root "
                    + "vg0/root"
            ])
    }

    @Test func `the newest dated snapshots of one name and volume are kept`() throws {
        let tag = "blkferry.history=day"
        func snapshot(_ name: String, _ tags: String, of origin: String = "root") -> [String:
            String]
        {
            ["lv_name": name, "lv_tags": tags, "origin": origin, "origin_uuid": origin]
        }
        let volumes = [
            snapshot("day-20260103T000000Z", "blkferry,\(tag)"),
            snapshot("day-20260101T000000Z", "blkferry,\(tag)"),
            snapshot("day-20260102T000000Z", "blkferry,\(tag)"),
            snapshot("day-20250101T000000Z", ""),
            snapshot("day-20250102T000000Z", "blkferry,blkferry.history=days"),
            snapshot("day-20250103T000000Z", "blkferry,\(tag)", of: "other"),
            // Of before one was merged back: LVM has forgotten whose it is.
            snapshot("day-20251231T000000Z", "blkferry,\(tag),blkferry.of=root", of: ""),
            snapshot("day-20251230T000000Z", "blkferry,\(tag),blkferry.of=other", of: ""),
            // Somebody has given it a name of his own.
            snapshot("day-golden", "blkferry,\(tag)"), snapshot("golden", "blkferry,\(tag)"),
            snapshot("day-20250101T000000Z-mine", "blkferry,\(tag)"),
        ]
        let one = try ScriptedGroup(volumes: [thin])
        let volume = try one.volume()
        // From now on LVM reports the snapshots as well.
        let all = try ScriptedGroup(volumes: [thin] + volumes)
        try must("cp", all.scratch.file("lvs"), one.scratch.file("lvs"))
        let name = try volume.take(TargetSnapshot(name: "day", keeps: 2), as: "T")
        #expect(name.wholeMatch(of: /vg0\/day-[0-9]{8}T[0-9]{6}Z/) != nil)
        #expect(one.calls.count == 1)
        #expect(one.calls.first?.contains("--addtag blkferry.of=root --addtag \(tag)") == true)
        #expect(volume.removeOlder(than: name, of: TargetSnapshot(name: "day", keeps: 3)) == [])
        #expect(
            one.calls.dropFirst() == [
                "lvremove --force vg0/day-20251231T000000Z",
                "lvremove --force vg0/day-20260101T000000Z",
            ])
        // It is its own, whatever the clock says.
        let oldest = "vg0/day-20260101T000000Z"
        try one.refuse("lvremove")
        let wish = TargetSnapshot(name: "day", keeps: 1)
        #expect(
            volume.removeOlder(than: oldest, of: wish).map { $0.prefix(24) } == [
                "vg0/day-20251231T000000Z", "vg0/day-20260102T000000Z", "vg0/day-20260103T000000Z",
            ])
        let taken = refusal { () throws(IOError) in
            _ = try volume.take(TargetSnapshot(name: "root"), as: "T")
        }
        #expect(taken?.cause == .nameTaken)
    }
}
