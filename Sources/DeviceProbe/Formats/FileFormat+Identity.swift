// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import LinuxIO

extension FileFormat {
    /// The identifier in the file, for formats that have one.
    func uuid(_ file: borrowing OwnedDescriptor, size: Int) -> String? {
        let range: ByteRange
        switch type {
        // VirtualBox, `VDIHEADER1`: uuidCreate at 0x188 of the file.
        case "vdi": range = ByteRange(offset: 0x188, length: 16)
        // "Virtual Hard Disk Image Format Specification": Unique Id at 68 of the footer.
        case "vhd": range = ByteRange(offset: place(size: size) + 68, length: 16)
        case "vhdx":
            guard let place = Self.virtualDiskID(file, size: size) else { return nil }
            range = ByteRange(offset: place, length: 16)
        case "vmdk": return VmdkImage(file, size: size)?.uuid
        default: return nil
        }
        guard range.end <= size, let bytes = file.bytes(of: range),
            bytes.contains(where: { $0 > 0 })
        else { return nil }
        return bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }

    /// Place of the identifier of a VHDX image's disk, in bytes from the start.
    ///
    /// The identifiers in its headers change with each write. Source: [MS-VHDX], 2.2.3 (region
    /// table) and 2.6 (metadata).
    private static func virtualDiskID(_ file: borrowing OwnedDescriptor, size: Int) -> Int? {
        guard
            let region = entry(
                metadataRegion, of: 192 << 10, signature: "regi", count: 8, first: 16,
                offset: 16..<24, file, size: size),
            let item = entry(
                virtualDiskItem, of: region, signature: "metadata", count: 10, first: 32,
                offset: 16..<20, file, size: size),
            region < size - item
        else { return nil }
        return region + item
    }

    /// GUIDs in their order on disk: 8B7CA206-4790-4B9A-B8FE-575F050F886E, and
    /// BECA12AB-B2E6-4523-93EF-C309E000C746.
    private static let metadataRegion: [UInt8] = [
        0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b, 0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88,
        0x6e,
    ]
    private static let virtualDiskItem: [UInt8] = [
        0xab, 0x12, 0xca, 0xbe, 0xe6, 0xb2, 0x23, 0x45, 0x93, 0xef, 0xc3, 0x09, 0xe0, 0x00, 0xc7,
        0x46,
    ]

    private static func entry(
        _ guid: [UInt8], of table: Int, signature: String, count: Int, first: Int,
        offset: Range<Int>, _ file: borrowing OwnedDescriptor, size: Int
    ) -> Int? {
        guard table <= size - (64 << 10),
            let bytes = file.bytes(of: ByteRange(offset: table, length: 64 << 10)),
            bytes.starts(with: signature.utf8)
        else { return nil }
        // Both tables have at most 2047 entries.
        let entries = min(Int(bytes.littleEndian(2, at: count)), (bytes.count - first) / 32)
        for place in stride(from: first, to: first + 32 * entries, by: 32)
        where bytes[place..<place + 16].elementsEqual(guid) {
            let value = bytes.littleEndian(offset.count, at: place + offset.lowerBound)
            return Int(exactly: value).flatMap { $0 < size ? $0 : nil }
        }
        return nil
    }

    /// A digest that replaces a missing identifier; `nil` if the file cannot be read.
    ///
    /// Headers of different virtual disks of one size are often equal. So for qcow2 and VMDK the
    /// digest covers the header and the guest's identifiers. For other formats it covers a part of
    /// the file that changes with the content.
    func fingerprint(_ file: borrowing OwnedDescriptor, size: Int) -> String? {
        let identity: [UInt8]? =
            switch type {
            case "qcow2": QcowImage(file, size: size)?.identity(file)
            case "vmdk": VmdkImage(file, size: size)?.identity(file)
            default: nil
            }
        if let identity { return Fingerprint.digest(of: identity) }
        var length = Fingerprint.superblock
        if case .qemu = unpacker { length = 1 << 20 }
        let start = ByteRange(0, to: min(length, size))
        guard var bytes = file.bytes(of: start) else { return nil }
        if type == "sqlite", bytes.count >= 100 {
            // SQLite, "Database File Format", 1.3: ignores the change counter and the
            // version-valid-for number. The first page holds the schema; pages of less than 4096
            // bytes have content after it.
            let page = Int(bytes.bigEndian(2, at: 16))
            for place in [24..<28, 92..<96] {
                bytes.replaceSubrange(place, with: [0, 0, 0, 0])
            }
            if page >= 512 { bytes = Array(bytes.prefix(page)) }
        }
        if case .end(let distance) = place {
            guard let footer = file.bytes(of: ByteRange(max(0, size - distance), to: size)) else {
                return nil
            }
            bytes += footer
        }
        return Fingerprint.digest(of: bytes)
    }
}
