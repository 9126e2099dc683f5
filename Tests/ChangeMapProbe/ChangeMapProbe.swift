// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import Glibc
internal import LinuxIO
internal import LogicalVolumes

/// Prints a change map, and shows that it is no lie: compares the two devices outside of it, byte
/// for byte.
///
///     ChangeMapProbe thin GROUP POOL OLD-ID NEW-ID OLD-DEVICE NEW-DEVICE
///     ChangeMapProbe classic GROUP SNAPSHOT OLD-DEVICE NEW-DEVICE
///
/// Each range is a line of its offset and its length in KiB. It ends with 0; with 1 where a byte
/// outside the map differs; with 2 where there is no map.
@main
enum ChangeMapProbe {
    static func main() {
        let words = Array(CommandLine.arguments.dropFirst())
        do {
            switch (words.first, words.count) {
            case ("thin", 7):
                guard let old = Int(words[3]), let new = Int(words[4]) else { break }
                let delta = try ThinPool(group: words[1], pool: words[2])
                    .delta(from: old, to: new) { false }
                try show(words[5], words[6]) { delta.map(size: $1, oldSize: $0, isOldAsMade: true) }
            case ("classic", 5):
                try show(words[3], words[4]) { _, size throws(IOError) in
                    try CowDevice(group: words[1], snapshot: words[2]).map(size: size) { false }
                }
            default: break
            }
        } catch {
            print(error)
            exit(2)
        }
        print("usage: as ChangeMapProbe.swift says")
        exit(64)
    }

    private static func show(
        _ old: String, _ new: String,
        _ map: (_ oldSize: Int, _ size: Int) throws(IOError) -> ChangeMap
    ) throws -> Never {
        let old = try BlockSpecialFile(path: old, name: old, access: .read)
        let new = try BlockSpecialFile(path: new, name: new, access: .read)
        let map = try map(old.geometry.size, new.geometry.size)
        for range in map.ranges { print("\(range.offset >> 10) \(range.length >> 10)") }
        exit(try isHonest(map, old, new) ? 0 : 1)
    }

    /// Whether all is equal outside the map, in blocks of 4 KiB.
    private static func isHonest(
        _ map: ChangeMap, _ old: BlockSpecialFile, _ new: BlockSpecialFile
    ) throws(IOError) -> Bool {
        let first = AlignedBuffer(count: 1 << 20)
        let second = AlignedBuffer(count: 1 << 20)
        let size = min(old.geometry.size, new.geometry.size)
        for start in stride(from: 0, to: size, by: first.count) {
            let length = min(first.count, size - start)
            let one = UnsafeMutableRawBufferPointer(rebasing: first.bytes[..<length])
            let other = UnsafeMutableRawBufferPointer(rebasing: second.bytes[..<length])
            try old.read(into: one, at: start)
            try new.read(into: other, at: start)
            for block in stride(from: 0, to: length, by: 4096)
            where !map.overlaps(ByteRange(offset: start + block, length: 4096)) {
                guard one[block..<block + 4096].elementsEqual(other[block..<block + 4096]) else {
                    print(
                        "not in the map, but different: 4 KiB from \((start + block) >> 10) KiB on")
                    return false
                }
            }
        }
        return size == new.geometry.size || map.next(from: size) == ByteRange(size, to: map.size)
    }
}
