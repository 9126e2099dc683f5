// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Testing

@testable import BlockDevices

/// The ring of texts that LVM leaves on a physical volume; real ones are in the scenarios of
/// tools/lab.
@Suite struct VolumeHistoryTests {
    private static let volume = VolumeUUID(
        group: "GrpGrpGrpGrpGrpGrpGrpGrpGrpGrpGr", volume: "VolVolVolVolVolVolVolVolVolVolVo")

    /// A version of a group: `root` has the extents from a place on, and `other` is no part of it.
    private func text(
        _ version: Int, place: Int = 0, tags: String = "", other: Int = 0, type: String = "striped",
        disk: String = "Dsk", padding: Int = 0
    ) -> [UInt8] {
        let lines = """
            vg1 {
            id = "GrpGrp-GrpG-rpGr-pGrp-GrpG-rpGr-pGrpGr"
            seqno = \(version)
            format = "lvm2"

            physical_volumes {

            pv0 {
            id = "\(disk)"
            device = "/dev/sdb"
            pe_start = 2048
            }
            }

            logical_volumes {

            root {
            id = "VolVol-VolV-olVo-lVol-VolV-olVo-lVolVo"
            status = ["READ", "WRITE", "VISIBLE"]
            tags = [\(tags)]
            segment_count = 1

            segment1 {
            start_extent = 0
            type = "\(type)"
            stripes = [
            "\(type == "raid1" ? "leg" : "pv0")", \(place)
            ]
            }
            }

            leg {
            id = "leg"
            segment1 {
            stripes = [
            "pv0", \(other)
            ]
            }
            }
            }

            }
            # Generated
            contents = "Text Format Volume Group"
            """
        return Array(lines.utf8) + [UInt8](repeating: UInt8(ascii: "\n"), count: padding) + [0]
    }

    /// An area of so many units of 512 bytes, into which LVM has written one text after the other.
    private func ring(_ texts: [[UInt8]], units: Int = 200, flags: UInt32 = 0) -> MetadataRing? {
        var area = [UInt8](repeating: 0, count: 512 * (units + 1))
        var place = 0
        var last = 0
        for text in texts {
            last = place
            for byte in text {
                area[512 + place] = byte
                place = (place + 1) % (512 * units)
            }
            place = (place + 511) / 512 * 512 % (512 * units)
        }
        func put<Number: FixedWidthInteger>(_ number: Number, at offset: Int) {
            withUnsafeBytes(of: number.littleEndian) { bytes in
                for (index, byte) in bytes.enumerated() { area[offset + index] = byte }
            }
        }
        area.replaceSubrange(4..<20, with: " LVM2 x[5A%r0N*>".utf8)
        put(UInt32(1), at: 20)
        put(UInt64(4096), at: 24)
        put(UInt64(area.count), at: 32)
        put(UInt64(512 + last), at: 40)
        put(UInt64(texts.last?.count ?? 0), at: 48)
        put(flags, at: 60)
        return MetadataRing(area)
    }

    private func versions(_ texts: [[UInt8]], units: Int = 200) -> ClosedRange<Int>? {
        ring(texts, units: units)?.versions(of: Self.volume)
    }

    @Test func `metadata versions that leave a volume in its place show no change`() {
        #expect(versions([text(1), text(2, tags: "\"a\""), text(3, other: 7)]) == 1...3)
        #expect(versions([text(9)]) == 9...9)
    }

    @Test func `a volume that was in another place meanwhile has been allocated anew`() {
        // As lvreduce and lvextend, or pvmove, do: the last version is as the first one.
        #expect(versions([text(1), text(2, place: 4), text(3)]) == 3...3)
        #expect(versions([text(1), text(2, place: 4), text(3), text(4)]) == 3...4)
        #expect(versions([text(1), text(2, type: "mirror"), text(3)]) == 3...3)
        #expect(versions([text(1), text(2, disk: "other"), text(3)]) == 3...3)
    }

    @Test func `changes of a volume's own parts count, and changes of other volumes do not`() {
        let legs = [
            text(1, type: "raid1"), text(2, other: 5, type: "raid1"), text(3, type: "raid1"),
        ]
        #expect(versions(legs) == 3...3)
        #expect(versions([text(1), text(2, other: 5), text(3)]) == 1...3)
    }

    @Test func `a missing metadata version ends the proof`() {
        #expect(versions([text(1), text(3), text(4)]) == 3...4)
    }

    @Test func `the metadata ring is read around its end, and no further than once round`() throws {
        for padding in [0, 100, 511, 512, 700] {
            let texts = (1...40).map { text($0, padding: padding) }
            let found = try #require(versions(texts, units: 20))
            let units = (texts[39].count + 511) / 512
            #expect(found.upperBound == 40)
            // What is left of the oldest one was overwritten in part.
            #expect(found.count <= 20 / units && found.count >= 20 / units - 1)
        }
    }

    @Test func `a metadata text that was partly overwritten is not used`() {
        // The third one is longer than the first, and has the start of the second.
        let units = (text(1, padding: 100).count + 511) / 512
        let texts = [text(1, padding: 100), text(2, padding: 100), text(3, padding: 700)]
        #expect(texts[2].count > units * 512 && texts[2].count < 2 * units * 512)
        #expect(versions(texts, units: 2 * units) == 3...3)
    }

    @Test func `an area that is invalid, or does not know the volume, has no versions`() {
        #expect(ring([text(1)], flags: 1) == nil)
        #expect(MetadataRing([]) == nil)
        #expect(MetadataRing([UInt8](repeating: 0, count: 4096)) == nil)
        #expect(ring([[1, 2, 3]])?.versions(of: Self.volume) == nil)
        let other = VolumeUUID(group: Self.volume.group, volume: "another")
        #expect(ring([text(1)])?.versions(of: other) == nil)
        let elsewhere = VolumeUUID(group: "another", volume: Self.volume.volume)
        #expect(ring([text(1)])?.versions(of: elsewhere) == nil)
    }

    @Test func `an LVM label leads to the metadata area`() throws {
        var sectors = [UInt8](repeating: 0, count: 4096)
        func put<Number: FixedWidthInteger>(_ number: Number, at offset: Int) {
            withUnsafeBytes(of: number.littleEndian) { bytes in
                for (index, byte) in bytes.enumerated() { sectors[offset + index] = byte }
            }
        }
        #expect(MetadataRing.area(in: sectors) == nil)
        sectors.replaceSubrange(512..<520, with: "LABELONE".utf8)
        put(UInt32(32), at: 532)
        // After the UUID and the size: one area of data, its end, one of metadata.
        put(UInt64(1 << 20), at: 512 + 32 + 40)
        put(UInt64(4096), at: 512 + 32 + 40 + 32)
        put(UInt64(1_044_480), at: 512 + 32 + 40 + 40)
        let area = try #require(MetadataRing.area(in: sectors))
        #expect(area.offset == 4096 && area.length == 1_044_480)
        put(UInt64(0), at: 512 + 32 + 40 + 32)
        #expect(MetadataRing.area(in: sectors) == nil)
    }

    @Test func `a device mapper name leads to the volume`() {
        let (group, volume) = (
            String(repeating: "a", count: 32), String(repeating: "b", count: 32)
        )
        #expect(VolumeUUID(mapper: "LVM-\(group)\(volume)")?.volume == volume)
        for uuid in ["", "LVM-", "CRYPT-\(group)\(volume)", "LVM-\(group)\(volume)-real"] {
            #expect(VolumeUUID(mapper: uuid) == nil)
        }
    }
}
