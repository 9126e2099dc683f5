// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import Foundation

/// Superblocks as other programs leave them, written into an image that exists: as much of them as
/// libblkid looks at.
package enum Superblocks {
    /// Writes bytes into a file.
    package static func put(_ bytes: [UInt8], at offset: Int, in path: String) throws {
        let file = try FileHandle(forWritingTo: URL(fileURLWithPath: path))
        try file.seek(toOffset: UInt64(offset))
        try file.write(contentsOf: Data(bytes))
        try file.close()
    }

    /// Reads bytes of a file.
    package static func bytes(of path: String, at offset: Int, count: Int) throws -> [UInt8] {
        let file = try FileHandle(forReadingFrom: URL(fileURLWithPath: path))
        try file.seek(toOffset: UInt64(offset))
        return Array(try file.read(upToCount: count) ?? Data())
    }

    package static func size(of path: String) throws -> Int {
        Int(try FileHandle(forReadingFrom: URL(fileURLWithPath: path)).seekToEnd())
    }

    /// md, metadata 0.90: in the last 64 KiB that are aligned and complete.
    package static func md090(_ path: String, uuid: UUID, member: UInt32) throws {
        let place = (try size(of: path) & ~0xffff) - 0x10000
        var words = [UInt32](repeating: 0, count: 1024)
        let id = little(uuid)
        (words[0], words[2]) = (0xa92b_4efc, 90)
        (words[5], words[13], words[14], words[15]) = (id[0], id[1], id[2], id[3])
        (words[7], words[8], words[9], words[10]) = (5, UInt32(place / 1024), 3, 3)
        (words[992], words[995], words[996]) = (member, member, 6)
        try put(words.flatMap { bytes($0) }, at: place, in: path)
    }

    /// md, metadata 1.0 to 1.2.
    package static func md1(_ path: String, minor: Int, set: UUID, device: UUID) throws {
        let place = [(try size(of: path) & ~0xfff) - 0x2000, 0, 0x1000][minor]
        var block = [UInt8](repeating: 0, count: 512)
        write(bytes(UInt32(0xa92b_4efc)) + bytes(UInt32(1)), to: &block, at: 0)
        write(raw(set) + Array("host:0".utf8), to: &block, at: 16)
        write(bytes(UInt64(1_600_000_000)) + bytes(UInt32(1)), to: &block, at: 64)
        write(bytes(UInt64(place / 512)), to: &block, at: 144)
        write(raw(device), to: &block, at: 168)
        let sum = (0..<64).reduce(UInt64(0)) { sum, index in
            sum + block[index * 4..<index * 4 + 4].reversed().reduce(0) { $0 << 8 | UInt64($1) }
        }
        write(bytes(UInt32(truncatingIfNeeded: sum + sum >> 32)), to: &block, at: 216)
        try put(block, at: place, in: path)
    }

    /// SNIA DDF: an anchor in the last sector, and the primary header that it points to.
    package static func ddf(_ path: String, group: String) throws {
        let size = try size(of: path)
        let primary = size - (1 << 20)
        var header = [UInt8](repeating: 0, count: 512)
        write([0xde, 0x11, 0xde, 0x11], to: &header, at: 0)
        write(Array(group.utf8.prefix(24)), to: &header, at: 8)
        write(Array("01.02.00".utf8), to: &header, at: 32)
        write(bytes(UInt64(primary / 512)).reversed(), to: &header, at: 96)
        try put(header, at: primary, in: path)
        try put(header, at: size - 512, in: path)
    }

    /// ZFS: some of the four labels, each with a list of names and eight uberblocks.
    package static func zfs(
        _ path: String, pool: UInt64, device: UInt64, labels: [Int] = [2, 3]
    ) throws {
        let size = try size(of: path) & ~((256 << 10) - 1)
        for label in labels {
            let start = label < 2 ? label * 256 << 10 : size - (4 - label) * (256 << 10)
            let pairs: [[UInt8]] = [
                pair("version", number: 5000), pair("name", text: "tank"), pair("state", number: 0),
                pair("pool_guid", number: pool), pair("guid", number: device),
            ]
            let list = big(0x0101_0000) + big(0) + big(1) + pairs.flatMap { $0 } + big(0)
            try put(list, at: start + 16 << 10, in: path)
            for index in 0..<8 {
                let block = [0x00ba_b10c, 5000, 1000 + UInt64(index)].flatMap { bytes($0) }
                try put(block, at: start + (128 + index) << 10, in: path)
            }
        }
    }

    /// LUKS 2: the primary header at 0, the secondary one behind it.
    package static func luks2(_ path: String, uuid: UUID, secondary: Int = 0x4000) throws {
        try put(luksHeader("LUKS", uuid, 0), at: 0, in: path)
        try luks2Secondary(path, uuid: uuid, at: secondary)
    }

    /// What an image that is stored in a file system may show at such a place.
    package static func luks2Secondary(_ path: String, uuid: UUID, at place: Int) throws {
        try put(luksHeader("SKUL", uuid, place), at: place, in: path)
    }

    private static func luksHeader(_ name: String, _ uuid: UUID, _ place: Int) -> [UInt8] {
        var header = [UInt8](repeating: 0, count: 512)
        write(Array(name.utf8) + [0xba, 0xbe, 0, 2], to: &header, at: 0)
        write(bytes(UInt64(0x4000)).reversed() + bytes(UInt64(3)).reversed(), to: &header, at: 8)
        write(Array("sha256".utf8), to: &header, at: 72)
        write(Array(uuid.uuidString.lowercased().utf8), to: &header, at: 168)
        write(bytes(UInt64(place)).reversed(), to: &header, at: 256)
        return header
    }

    /// BitLocker of Windows 7 and later; two volumes of one size differ in their metadata only.
    package static func bitLocker(_ path: String, volume: UUID) throws {
        var sector = [UInt8](repeating: 0, count: 512)
        write([0xeb, 0x58, 0x90] + Array("-FVE-FS-".utf8) + [0, 2, 8], to: &sector, at: 0)
        write(
            [0x3b, 0xd6, 0x67, 0x49, 0x29, 0x2e, 0xd8, 0x4a, 0x83, 0x99, 0xf6, 0xa3, 0x39, 0xe3]
                + [0xd0, 1], to: &sector, at: 160)
        let places: [UInt64] = [1 << 20, 2 << 20, 3 << 20]
        write(places.flatMap { bytes($0) } + [], to: &sector, at: 176)
        write([0x55, 0xaa], to: &sector, at: 510)
        try put(sector, at: 0, in: path)
        for place in places {
            let block = Array("-FVE-FS-".utf8) + [64, 0, 2, 0]
            try put(
                block + [UInt8](repeating: 0, count: 68) + raw(volume), at: Int(place), in: path)
        }
    }

    package static func squashfs(_ path: String, time: UInt32) throws {
        var block = [UInt8](repeating: 0, count: 96)
        write(
            Array("hsqs".utf8) + [10, 131_072, 1].flatMap { bytes(UInt32($0)) }, to: &block, at: 0)
        write(bytes(time), to: &block, at: 8)
        write([1, 17, 0, 1, 4, 0].flatMap { bytes(UInt16($0)) }, to: &block, at: 20)
        write(bytes(UInt64(1_000_000)), to: &block, at: 40)
        try put(block, at: 0, in: path)
    }

    // MARK: - Numbers

    private static func write(_ bytes: [UInt8], to block: inout [UInt8], at offset: Int) {
        block.replaceSubrange(offset..<offset + bytes.count, with: bytes)
    }

    private static func bytes(_ number: some FixedWidthInteger) -> [UInt8] {
        withUnsafeBytes(of: number.littleEndian) { Array($0) }
    }

    private static func big(_ number: UInt32) -> [UInt8] { bytes(number).reversed() }

    private static func raw(_ uuid: UUID) -> [UInt8] {
        withUnsafeBytes(of: uuid.uuid) { Array($0) }
    }

    private static func little(_ uuid: UUID) -> [UInt32] {
        let all = raw(uuid)
        return stride(from: 0, to: 16, by: 4).map { index in
            all[index..<index + 4].reversed().reduce(0) { $0 << 8 | UInt32($1) }
        }
    }

    private static func pair(_ name: String, number: UInt64) -> [UInt8] {
        pair(name, big(8) + big(1) + bytes(number).reversed())
    }

    private static func pair(_ name: String, text: String) -> [UInt8] {
        pair(name, big(9) + big(1) + big(UInt32(text.utf8.count)) + padded(text))
    }

    private static func pair(_ name: String, _ value: [UInt8]) -> [UInt8] {
        let size = UInt32(12 + padded(name).count + value.count)
        return big(size) + big(size) + big(UInt32(name.utf8.count)) + padded(name) + value
    }

    private static func padded(_ text: String) -> [UInt8] {
        let bytes = Array(text.utf8)
        return bytes + [UInt8](repeating: 0, count: (4 - bytes.count % 4) % 4)
    }
}
