// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import LogicalVolumes
import Testing

@Suite struct VolumeNameTests {
    @Test(
        arguments: [
            ("vg0/root", "vg0", "root"), ("dev/sda", "dev", "sda"), ("mapper/x", "mapper", "x"),
            (".a/..", ".a", ".."), ("a b/-\u{e9}", "a b", "-\u{e9}"), ("a@b/c@d", "a@b", "c@d"),
            ("vg0/@pool", "vg0", "@pool"),
        ])
    func `two words with a slash between them are split, whatever they are`(
        text: String, group: String, volume: String
    ) {
        #expect(VolumeName(text[...]) == VolumeName(group: group, volume: volume))
        #expect(VolumeName(group: group, volume: volume).text == text)
    }

    @Test(arguments: ["", "/", "root", "vg0/", "/root", "vg0//root", "a/b/c", "/dev/vg0/root"])
    func `text with fewer or more words is not split`(text: String) {
        #expect(VolumeName(text[...]) == nil)
    }

    @Test(
        arguments: [
            ("vg0", "root", "vg0-root"), ("vg-0", "root", "vg--0-root"),
            ("a", "b--c-", "a-b----c--"), ("a-", "b", "a---b"), ("a", "b_tmeta", "a-b_tmeta"),
        ])
    func `device mapper names are those that LVM makes, and lead back to the volume`(
        group: String, volume: String, mapperName: String
    ) {
        let name = VolumeName(group: group, volume: volume)
        #expect(name.mapperName == mapperName)
        #expect(VolumeName(mapperName: mapperName) == name)
    }

    @Test(arguments: ["", "root", "a--b", "vg0-pool-tpool", "vg0-root-cow", "a-b-c-d"])
    func `a device mapper name of a part, or of no volume, is not parsed`(mapperName: String) {
        #expect(VolumeName(mapperName: mapperName) == nil)
    }
}

@Suite struct VolumePlaceTests {
    @Test(
        arguments: [
            ("vg0/root", "vg0", "root", nil, "vg0/root"),
            ("vg0/root@pool", "vg0", "root", "pool", "vg0/root"),
            ("/dev/vg-0/a.b+c_d", "vg-0", "a.b+c_d", nil, "/dev/vg-0/a.b+c_d"),
            ("/dev/vg0/root@p", "vg0", "root", "p", "/dev/vg0/root"),
        ] as [(String, String, String, String?, String)])
    func `a volume place has a group, a name, maybe a pool`(
        text: String, group: String, volume: String, pool: String?, selector: String
    ) throws {
        let place = try #require(VolumePlace(text))
        #expect(place.group == group && place.volume == volume && place.pool == pool)
        #expect(place.selector == selector && place.name == "\(group)/\(volume)")
    }

    @Test(
        arguments: [
            "", "root", "/", "vg0/", "/root", "vg0//root", "a/b/c", "/dev/root", "/dev/mapper/x",
            "/srv/vg0/root", "./root", "vg0/..", "vg0/-x", "vg0/a b", "vg0/a@", "vg0/a@b/c",
            "vg0/a@b@c", "@pool", "UUID=1/2", "vg0/\u{e9}",
        ])
    func `text that cannot be a volume's name is no volume place`(text: String) {
        #expect(VolumePlace(text) == nil)
    }
}

@Suite struct OwnSnapshotNameTests {
    @Test(arguments: [
        "root.blkferry.20261123T031500.1234", "a.b-c.blkferry.20261123T031500.1",
        "s.blkferry.1.blkferry.20261123T031500.77",
    ])
    func `a snapshot name with the time and a process is blkferry's`(name: String) {
        #expect(isNameOfOwnSnapshot(name))
    }

    @Test(arguments: [
        "root", "", ".blkferry.20261123T031500.1234", "root.blkferry.20261123T031500",
        "root.blkferry.20261123T031500.", "root.blkferry.20261123T031500.12a",
        "root.blkferry.20261123T03150.1234", "root.blkferry.2026112T0315001.1234",
        "root.blkferry.20261123-031500.1234", "root.blkferry.20261123T031500.1234.old",
        "rootblkferry.20261123T031500.1234", "root.blkferry.notes",
        "root.blkferry.٢٠٢٦١١٢٣T031500.1",
    ])
    func `any other snapshot name is the user's`(name: String) {
        #expect(!isNameOfOwnSnapshot(name))
    }
}
