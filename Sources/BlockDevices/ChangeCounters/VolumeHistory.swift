// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import LinuxIO
internal import Synchronization

/// The history of a logical volume's extents, from the metadata on its physical volumes.
///
/// A volume that shrank and grew again has the same table as before, although another volume may
/// have had its extents in between. Only LVM keeps a trace: it writes each version of the metadata
/// behind the last one, into a ring of about 1 MiB. Older versions are readable until the ring
/// wraps around.
enum VolumeHistory {
    /// The range of metadata versions in which a volume has had its current extents, as far as they
    /// are readable.
    ///
    /// It is `nil` if a physical volume cannot be read, or if they disagree.
    static func versions(
        of volume: VolumeUUID, on disks: [SystemDevice]
    ) -> ClosedRange<Int>? {
        var found: ClosedRange<Int>?
        var seen: Set<String> = []
        for disk in disks where seen.insert(disk.directory).inserted {
            guard let versions = versions(of: volume, on: disk) else { return nil }
            if let before = found {
                guard before.upperBound == versions.upperBound else { return nil }
                found = max(before.lowerBound, versions.lowerBound)...versions.upperBound
            } else {
                found = versions
            }
        }
        return found
    }

    private struct Question: Hashable {
        let volume: VolumeUUID
        let disk: String
    }

    /// The last answer to each question, and the header of that moment, which each version changes.
    private static let answers = Mutex<[Question: (header: [UInt8], answer: ClosedRange<Int>)]>([:])

    private static func versions(
        of volume: VolumeUUID, on disk: SystemDevice
    ) -> ClosedRange<Int>? {
        guard let area = MetadataArea(of: disk), let header = area.header() else { return nil }
        let question = Question(volume: volume, disk: disk.directory)
        if let last = answers.withLock({ $0[question] }), last.header == header {
            return last.answer
        }
        guard let bytes = area.bytes(), bytes.starts(with: header),
            let answer = MetadataRing(bytes)?.versions(of: volume)
        else { return nil }
        answers.withLock { $0[question] = (header, answer) }
        return answer
    }
}

private struct MetadataArea {
    private let file: BlockSpecialFile
    private let offset: Int
    private let length: Int

    /// Bytes; LVM makes areas of 1 MiB by default.
    private static let limit = 16 << 20

    init?(of disk: SystemDevice) {
        let path = "/dev/\(deviceName(disk.name))"
        guard let number = disk.number, (try? FileStatus(path: path))?.device == number,
            // LVM bypasses the page cache, which may be stale; this open reads directly.
            let file = try? BlockSpecialFile(path: path, name: path, access: .read),
            let sectors = Self.read(file, 0, 8 * MetadataRing.unit),
            let area = MetadataRing.area(in: sectors), area.length <= Self.limit
        else { return nil }
        self.file = file
        (offset, length) = area
    }

    func header() -> [UInt8]? { Self.read(file, offset, MetadataRing.header) }

    func bytes() -> [UInt8]? { Self.read(file, offset, length) }

    private static func read(_ file: BlockSpecialFile, _ offset: Int, _ count: Int) -> [UInt8]? {
        let unit = max(file.geometry.alignment, MetadataRing.unit)
        let first = offset / unit * unit
        let end = (offset + count).roundedUp(to: unit)
        guard end <= file.geometry.size else { return nil }
        let memory = AlignedBuffer(count: end - first)
        let bytes = UnsafeMutableRawBufferPointer(rebasing: memory.bytes[..<(end - first)])
        guard (try? file.read(into: bytes, at: first)) != nil else { return nil }
        return Array(bytes[offset - first..<offset - first + count])
    }
}

/// The metadata area of a physical volume: a header, then a ring of texts.
///
/// A text starts at the next multiple of 512 bytes, wraps around at the end of the ring, and ends
/// with a zero byte. Source: `struct mda_header` and `raw_locn` in lib/format_text/layout.h of
/// LVM2, and lib/format_text/format-text.c.
struct MetadataRing {
    /// Without the header.
    private let bytes: [UInt8]
    /// The place of the current text.
    private let start: Int

    /// Bytes of the header, and the unit of the starts of texts.
    static let header = 512
    static let unit = 512

    /// `nil` if the area is not one of LVM or is not in use.
    init?(_ area: [UInt8]) {
        guard area.count > Self.header, (area.count - Self.header) % Self.unit == 0,
            area.integer(at: 24, UInt64.self) != nil,
            Array(area[4..<20]) == Array(" LVM2 x[5A%r0N*>".utf8),
            area.integer(at: 20, UInt32.self) == 1,
            area.integer(at: 32, UInt64.self) == UInt64(area.count),
            // The first location is that of the current text: offset, size, checksum, flags.
            let offset = area.integer(at: 40, UInt64.self).flatMap({ Int(exactly: $0) }),
            let flags = area.integer(at: 60, UInt32.self), flags & 1 == 0,
            offset >= Self.header, offset < area.count
        else { return nil }
        bytes = Array(area[Self.header...])
        start = offset - Self.header
    }

    /// Finds the first metadata area by the label in one of the first four sectors.
    ///
    /// Behind the UUID and the size are pairs of offset and size: data areas, a pair of zeros,
    /// metadata areas. Source: `struct label_header` in lib/label/label.h and `struct pv_header` in
    /// layout.h.
    static func area(in sectors: [UInt8]) -> (offset: Int, length: Int)? {
        for label in stride(from: 0, to: min(sectors.count, 4 * unit), by: unit) {
            guard sectors[label..<min(label + 8, sectors.count)].elementsEqual("LABELONE".utf8),
                let header = sectors.integer(at: label + 20, UInt32.self)
            else { continue }
            var place = label + Int(header) + 40
            var zeros = 0
            while let offset = sectors.integer(at: place, UInt64.self),
                let length = sectors.integer(at: place + 8, UInt64.self)
            {
                place += 16
                if zeros == 1 {
                    guard offset > 0, length > 0, let start = Int(exactly: offset),
                        let count = Int(exactly: length), start < Geometry.maximumSize
                    else { return nil }
                    return (start, count)
                }
                if offset == 0 { zeros += 1 }
            }
            return nil
        }
        return nil
    }

    func versions(of volume: VolumeUUID) -> ClosedRange<Int>? {
        guard let present = text(at: start, limit: bytes.count),
            present.group == volume.group, let extents = present.extents(of: volume.volume)
        else { return nil }
        var first = present.version
        var place = start
        // The oldest text is behind the current one, at the other end of the ring.
        var left = bytes.count - present.length.roundedUp(to: Self.unit)
        while let (before, distance) = textBefore(place, limit: left, version: first - 1),
            before.group == volume.group, before.extents(of: volume.volume) == extents
        {
            first = before.version
            place = (place + bytes.count - distance) % bytes.count
            left -= distance
        }
        return first...present.version
    }

    /// The text that ends at a place, and the number of bytes from its start to there.
    private func textBefore(
        _ place: Int, limit: Int, version: Int
    ) -> (VolumeGroupText, distance: Int)? {
        for distance in stride(from: Self.unit, through: max(Self.unit, limit), by: Self.unit)
        where distance <= limit {
            let start = (place + bytes.count - distance) % bytes.count
            guard isStart(start) else { continue }
            guard let text = text(at: start, limit: distance),
                text.length.roundedUp(to: Self.unit) == distance, text.version == version
            else { return nil }
            return (text, distance)
        }
        return nil
    }

    /// Whether a text may start here: `NAME {` and `id = "` on the first two lines.
    private func isStart(_ place: Int) -> Bool {
        let line = prefix(at: place, count: 160)
        guard let end = line.firstIndex(of: UInt8(ascii: "\n")) else { return false }
        return line[..<end].suffix(2).elementsEqual(" {".utf8)
            && line[line.index(after: end)...].starts(with: "id = \"".utf8)
    }

    private func prefix(at place: Int, count: Int) -> [UInt8] {
        let count = min(count, bytes.count)
        let whole = min(count, bytes.count - place)
        return Array(bytes[place..<place + whole] + bytes[..<(count - whole)])
    }

    private func text(at place: Int, limit: Int) -> VolumeGroupText? {
        let bytes = prefix(at: place, count: limit)
        guard let end = bytes.firstIndex(of: 0) else { return nil }
        return VolumeGroupText(bytes[..<end])
    }
}

extension [UInt8] {
    /// Little-endian, as in LVM's headers; `nil` beyond the end.
    fileprivate func integer<Number: FixedWidthInteger>(
        at offset: Int, _ type: Number.Type
    ) -> Number? {
        guard offset >= 0, offset + MemoryLayout<Number>.size <= count else { return nil }
        return withUnsafeBytes {
            Number(littleEndian: $0.loadUnaligned(fromByteOffset: offset, as: Number.self))
        }
    }
}
