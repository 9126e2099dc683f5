// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import DeviceProbe
internal import LinuxIO

/// The backup of a GPT at the end of a larger target, where `sgdisk --move-second-header` puts it.
///
/// Source: UEFI Specification 2.10, 5.3 "GUID Partition Table (GPT) Disk Layout".
struct MovedBackup: Sendable {
    /// The source's primary header.
    let original: Patch
    /// The target's primary header, which contains the new place of the backup.
    let adjusted: [UInt8]
    /// The entries and the header of the backup, which lie behind the replica.
    let backup: [Patch]

    /// - Parameter sector: the table's sector size in bytes.
    /// - Throws: `refused` if the target has no room behind the source or does not end at a sector;
    ///   `device` or `network` if the table is damaged or cannot be read.
    init(
        _ source: any BlockDevice, sector: Int, target: any BlockDevice
    ) throws(ReplicationError) {
        let table: Header
        let entries: [UInt8]
        do throws(IOError) {
            (table, entries) = try Self.table(of: source, sector: sector)
        } catch {
            throw ReplicationError(error)
        }
        let targetSize = target.geometry.size
        let length = entries.count.roundedUp(to: sector)
        let place = targetSize - sector - length
        guard targetSize % sector == 0, place >= source.geometry.size else {
            throw ReplicationError(
                IOError.refusal(
                    .size, target.name,
                    "no room for the backup GPT: the target must be larger than the source "
                        + "by at least \(sector + length) bytes and end with a sector of "
                        + "\(sector)",
                    advice: "--size-policy prefix without --move-backup-gpt leaves the "
                        + "backup where the source has it."))
        }
        let last = targetSize / sector - 1
        original = Patch(table.bytes, at: sector)
        var primary = table
        primary.alternate = last
        primary.lastUsable = place / sector - 1
        adjusted = primary.sealed
        var second = primary
        second.block = last
        second.alternate = 1
        second.entriesBlock = place / sector
        let padding = [UInt8](repeating: 0, count: length - entries.count)
        let rest = [UInt8](repeating: 0, count: sector - second.bytes.count)
        backup = [
            Patch(entries + padding, at: place),
            Patch(second.sealed + rest, at: targetSize - sector),
        ]
    }

    /// Reads the primary header and the entries, and throws if they are damaged.
    private static func table(
        of source: any BlockDevice, sector: Int
    ) throws(IOError) -> (Header, [UInt8]) {
        let damaged = IOError(source.name, "read GPT", reason: "its header is damaged")
        // A server gives size and sector size.
        guard source.geometry.size / sector >= 2 else { throw damaged }
        let block = try source.bytes(of: ByteRange(offset: sector, length: sector))
        guard let table = Header(block), table.isSane(sector: sector, size: source.geometry.size)
        else { throw damaged }
        let entries = try source.bytes(
            of: ByteRange(offset: table.entriesBlock * sector, length: table.entriesLength))
        guard crc32(entries) == table.entriesChecksum else {
            throw IOError(source.name, "read GPT", reason: "its entries are damaged")
        }
        return (table, entries)
    }

    /// Whether a target has another backup, or none.
    func differs(on target: any BlockDevice) throws(IOError) -> Bool {
        for patch in backup {
            if try target.bytes(of: patch.range) != patch.bytes { return true }
        }
        return false
    }

    /// The source with the target's primary header.
    func source(_ device: any BlockDevice) -> any BlockDevice {
        SubstitutedDevice(device, original, as: adjusted)
    }

    /// The target with the source's primary header.
    func target(_ device: any BlockDevice) -> any BlockDevice {
        SubstitutedDevice(device, Patch(adjusted, at: original.offset), as: original.bytes)
    }
}

/// The header of a GPT, with places in sectors.
private struct Header {
    private(set) var bytes: [UInt8]

    /// Parses the header in its sector; `nil` if it is no header or is damaged.
    init?(_ sector: [UInt8]) {
        guard sector.starts(with: Array("EFI PART".utf8)), sector.count >= 512 else { return nil }
        let length = Self.number(sector, 12, 4)
        guard (92...sector.count).contains(length) else { return nil }
        bytes = Array(sector[..<length])
        guard sealed == bytes else { return nil }
    }

    var block: Int {
        get { Self.number(bytes, 24, 8) }
        set { set(newValue, 24, 8) }
    }
    var alternate: Int {
        get { Self.number(bytes, 32, 8) }
        set { set(newValue, 32, 8) }
    }
    var lastUsable: Int {
        get { Self.number(bytes, 48, 8) }
        set { set(newValue, 48, 8) }
    }
    var entriesBlock: Int {
        get { Self.number(bytes, 72, 8) }
        set { set(newValue, 72, 8) }
    }
    /// Bytes; the largest number if the header's number and size of entries are nonsense.
    var entriesLength: Int {
        let (length, isTooLarge) = Self.number(bytes, 80, 4)
            .multipliedReportingOverflow(by: Self.number(bytes, 84, 4))
        return isTooLarge ? .max : length
    }
    var entriesChecksum: UInt32 { UInt32(Self.number(bytes, 88, 4)) }

    /// Whether it is the primary header, with at most 16 MiB of entries on the disk.
    func isSane(sector: Int, size: Int) -> Bool {
        block == 1 && (1...16 << 20).contains(entriesLength) && entriesBlock >= 2
            && entriesBlock <= (size - entriesLength) / sector
    }

    /// The header with its checksum.
    var sealed: [UInt8] {
        var header = self
        header.set(0, 16, 4)
        header.set(Int(crc32(header.bytes)), 16, 4)
        return header.bytes
    }

    private static func number(_ bytes: [UInt8], _ offset: Int, _ length: Int) -> Int {
        let number = bytes[offset..<offset + length].reversed().reduce(UInt64(0)) {
            $0 << 8 | UInt64($1)
        }
        return Int(clamping: number)
    }

    private mutating func set(_ number: Int, _ offset: Int, _ length: Int) {
        for index in 0..<length {
            bytes[offset + index] = UInt8(truncatingIfNeeded: number >> (8 * index))
        }
    }
}

/// The CRC-32 of IEEE 802.3, as GPT uses it.
private func crc32(_ bytes: [UInt8]) -> UInt32 {
    let rest = bytes.reduce(~UInt32(0)) { sum, byte in
        (0..<8).reduce(sum ^ UInt32(byte)) { value, _ in
            value >> 1 ^ (value & 1 == 1 ? 0xedb8_8320 : 0)
        }
    }
    return ~rest
}
