// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import LinuxIO
import LogicalVolumes
import TestSupport
import Testing

/// What lvs(8) has printed of real volumes is understood; see `LVMReport`.
@Suite struct LogicalVolumeTests {
    private let lvm: ScriptedLVM

    init() throws {
        lvm = try ScriptedLVM()
        lvm.put("report", LVMReport.all)
    }

    private func volume(_ name: String) throws -> LogicalVolume { try lvm.lvm().volume(name) }

    /// Reads a report that differs from the real one.
    private func volumes(
        replacing old: String, with new: String
    ) throws -> [String: LogicalVolume] {
        #expect(LVMReport.all.contains(old))
        lvm.put("report", LVMReport.all.replacing(old, with: new))
        return Dictionary(
            try lvm.lvm().volumes().map { ($0.fullName, $0) },
            uniquingKeysWith: { first, _ in first })
    }

    @Test func `the store size for a volume of almost 8 EiB can be computed`() throws {
        let size = Int.max / 4096 * 4096
        var volume = try volume("vg0/two")
        volume.size = size
        for wanted in [VolumeSnapshot.Size.percent(100), .bytes(.max), .bytes(size)] {
            let bytes = wanted.bytes(of: volume)
            #expect(bytes > size / 2 && bytes % volume.extentSize == 0, "\(wanted)")
        }
        #expect(SnapshotStore.fullSize(of: size) == size)
        #expect(SnapshotStore.fullSize(of: 4096) == 3 * 4096)
    }

    @Test func `the report lists every volume once, however many segments it has`() throws {
        let volumes = try lvm.lvm().volumes()
        #expect(
            volumes.map(\.fullName) == [
                "vg0/external", "vg0/inactive", "vg0/lvol0_pmspare", "vg0/monday",
                "vg0/onexternal", "vg0/pool", "vg0/pool_tdata", "vg0/pool_tmeta", "vg0/root-a.b+c",
                "vg0/skipped", "vg0/striped", "vg0/thin", "vg0/two", "vg1/base", "vg1/cached",
                "vg1/cached_corig", "vg1/classic", "vg1/fast_cpool", "vg1/frozen", "vg1/grown",
                "vg1/mirror", "vg1/mirror_mimage_0", "vg1/raid", "vg1/raid_rimage_0",
                "vg1/raid_rmeta_0", "vg1/small",
            ])
        #expect(try volume("vg0/two").size == 32 << 20)
        #expect(LVMReport.all.split(separator: "\"lv_name\":\"two\"").count == 3)
    }

    @Test(arguments: [
        ("vg0/two", "linear"), ("vg0/striped", "striped"), ("vg0/thin", "thin"),
        ("vg0/pool", "thin-pool"), ("vg1/raid", "raid1"), ("vg1/mirror", "mirror"),
        ("vg1/cached", "cache"), ("vg1/classic", "linear"),
    ])
    func `a volume's type is that of its first segment`(name: String, type: String) throws {
        let volume = try volume(name)
        #expect(volume.segmentType == type)
        #expect(volume.isThin == (type == "thin"))
        #expect(volume.isThinPool == (type == "thin-pool"))
    }

    @Test func `sizes of volumes are bytes`() throws {
        let volume = try volume("vg0/root-a.b+c")
        #expect(volume.size == 16 << 20)
        #expect(volume.extentSize == 4 << 20)
        #expect(volume.groupFree == LVMReport.freeOfVG0)
        #expect(volume.storeSize == nil && volume.percent == nil)
    }

    @Test func `a thin snapshot has its origin, its pool and its id in that`() throws {
        let (monday, thin) = (try volume("vg0/monday"), try volume("vg0/thin"))
        #expect(monday.origin == "thin" && monday.originUUID == thin.uuid)
        #expect(monday.pool == "pool" && thin.pool == "pool" && thin.origin == nil)
        #expect(monday.thinID == 3 && thin.thinID == 1)
        #expect(monday.transaction == 2 && thin.transaction == 0)
        #expect(try volume("vg0/pool").transaction == 6)
        #expect(monday.tags == ["blkferry", "blkferry.owner=1-2.3/x:y"] && thin.tags == [])
        #expect(monday.size == 32 << 20 && monday.storeSize == nil && !monday.isClassicSnapshot)
        #expect(monday.percent == 25 && thin.percent == 25)
        #expect(try volume("vg0/pool").percent == 12.5)
        // The fill of an inactive volume is unknown.
        #expect(try volume("vg0/skipped").percent == nil)
    }

    @Test func `a thin volume may have an origin outside its pool`() throws {
        let volume = try volume("vg0/onexternal")
        #expect(volume.isThin && volume.origin == "external" && volume.pool == "pool")
        #expect(!volume.isClassicSnapshot && volume.percent == 0)
    }

    @Test func `a classic snapshot is as large as its origin, and its store has a size of its own`()
        throws
    {
        let base = try volume("vg1/base")
        #expect(base.size == 16 << 20 && !base.isClassicSnapshot && base.origin == nil)
        for (name, store) in [("classic", 8 << 20), ("small", 4 << 20), ("grown", 16 << 20)] {
            let snapshot = try volume("vg1/\(name)")
            #expect(snapshot.isClassicSnapshot)
            #expect(snapshot.origin == "base" && snapshot.originUUID == base.uuid)
            #expect(snapshot.size == 16 << 20)
            #expect(snapshot.storeSize == store)
        }
        #expect(try volume("vg1/classic").percent == 75.39)
    }

    @Test func `a snapshot that has overflowed is invalid, and no other snapshot is`() throws {
        let invalid = try lvm.lvm().volumes().filter(\.isInvalid)
        #expect(invalid.map(\.fullName) == ["vg1/small"])
        // Suspended, it is a capital S.
        let suspended = try volumes(replacing: "\"swi-Ios---\"", with: "\"swi-Sos---\"")
        #expect(suspended["vg1/small"]?.isInvalid == true)
    }

    @Test func `a snapshot that is merged into its origin is still a snapshot, and a part`() throws
    {
        lvm.put("report", LVMReport.merging)
        let snapshot = try volume("vg1/classic")
        #expect(snapshot.isClassicSnapshot && snapshot.isPart && !snapshot.isInvalid)
        #expect(snapshot.size == 16 << 20 && snapshot.storeSize == 8 << 20)
    }

    @Test func `a volume that only LVM uses is a part, and named without its brackets`() throws {
        let parts = try lvm.lvm().volumes().filter(\.isPart)
        #expect(
            parts.map(\.name) == [
                "lvol0_pmspare", "pool_tdata", "pool_tmeta", "cached_corig", "fast_cpool",
                "mirror_mimage_0", "raid_rimage_0", "raid_rmeta_0",
            ])
        let cached = try volume("vg1/cached")
        #expect(cached.pool == "fast_cpool" && cached.origin == "cached_corig")
        #expect(!cached.isClassicSnapshot)
    }

    @Test func `an open volume is in use`() throws {
        #expect(try volume("vg1/small").isInUse)
        for name in ["vg0/inactive", "vg0/thin", "vg1/frozen", "vg1/classic"] {
            #expect(try !volume(name).isInUse)
        }
    }

    @Test(arguments: [
        "vg0/root-a.b+c", "/dev/vg0/root-a.b+c", "/dev/mapper/vg0-root--a.b+c",
    ])
    func `any of a volume's names leads to it`(name: String) throws {
        #expect(try volume(name).name == "root-a.b+c")
    }

    @Test(arguments: ["vg0", "/dev/vg0", "@blkferry", "root-a.b+c"])
    func `the name of a group or a tag is no volume's`(name: String) throws {
        // LVM takes it for all that is meant by it, which may be one.
        lvm.put([ScriptedLVM.json("monday", tags: ["blkferry"])])
        #expect {
            try volume(name)
        } throws: {
            "\($0)" == "\(name): find volume: it is no logical volume"
        }
    }

    @Test func `volumes of a cloned group are distinguished by the group`() throws {
        let rows = ["vg0", "vg9"].map { group in
            ScriptedLVM.json("root", tags: [], origin: nil)
                .replacing("\"vg0\"", with: "\"\(group)\"")
                .replacing("\"G\"", with: "\"G-\(group)\"")
        }
        lvm.put(rows)
        #expect(try lvm.lvm().volumes().count == 2)
        for group in ["vg0", "vg9"] {
            let identity = VolumeIdentity(groupUUID: "G-\(group)", uuid: "U-root")
            #expect(try lvm.lvm().volume(identity, as: "x").group == group)
        }
        let other = VolumeIdentity(groupUUID: "G-vg8", uuid: "U-root")
        #expect {
            try lvm.lvm().volume(other, as: "LVUUID=x")
        } throws: {
            "\($0)" == "LVUUID=x: find volume: LVM does not know it"
        }
    }

    @Test(arguments: [("25.00", 25.0), ("25,00", 25), ("25\u{66B}00", 25), ("100,00", 100)])
    func `percentages are read with any country's decimal separator`(text: String, percent: Double)
        throws
    {
        let volumes = try volumes(
            replacing: "\"snap_percent\":\"25.00\"", with: "\"snap_percent\":\"\(text)\"")
        #expect(volumes["vg0/thin"]?.percent == percent)
    }

    @Test(arguments: [
        ("\"lv_size\":\"", "\"size\":\""), ("\"lv_size\":\"8388608\"", "\"lv_size\":\"8.00m\""),
        ("\"lv_uuid\"", "\"uuid\""), ("\"lv_attr\"", "\"attr\""),
        ("\"origin_size\":\"16777216\"", "\"origin_size\":\"\""), ("\"report\"", "\"reports\""),
        ("\"vg_name\"", "vg_name"),
    ])
    func `a report without a needed field is refused`(old: String, new: String) throws {
        #expect {
            try volumes(replacing: old, with: new)
        } throws: {
            "\($0)" == "lvs: report: what it prints cannot be understood"
        }
    }

    @Test func `no volumes are a report without rows, not another report`() throws {
        lvm.put([])
        #expect(try lvm.lvm().volumes() == [])
        lvm.put("report", "{\"report\": [{\"vg\": []}]}")
        #expect(throws: IOError.self) { try lvm.lvm().volumes() }
    }

    @Test func `origins and names are found without the other fields`() throws {
        let lvm = try lvm.lvm()
        let origins = try lvm.volumes().compactMap { volume in
            volume.origin.map {
                (volume.identity, VolumeName(group: volume.group, volume: $0))
            }
        }
        #expect(try lvm.origins() == Dictionary(uniqueKeysWithValues: origins))
        #expect(origins.contains { $0.1.text == "vg1/cached_corig" })
        #expect(try lvm.hasVolume(VolumeName(group: "vg0", volume: "thin")))
        #expect(try !lvm.hasVolume(VolumeName(group: "vg1", volume: "thin")))
    }

    @Test func `the options for lvs do not depend on its settings`() throws {
        _ = try lvm.lvm().volumes("vg0")
        let asked = try String(contentsOfFile: lvm.scratch.file("asked"), encoding: .utf8)
        #expect(
            asked == """
                lvs --all --config log { command_names=0 prefix="" } report { prefixes=0 \
                list_item_separator="," mark_hidden_devices=1 compact_output=0 } \
                --reportformat json --units b --nosuffix \
                --options vg_name,vg_uuid,lv_name,lv_uuid,lv_size,origin_size,segtype,data_stripes,pool_lv,\
                origin,origin_uuid,thin_id,transaction_id,lv_tags,snap_percent,data_percent,\
                vg_free,vg_extent_size,lv_attr,lv_dm_path vg0

                """)
    }
}
