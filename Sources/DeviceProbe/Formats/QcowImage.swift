// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import LinuxIO
internal import SystemPackage

/// The parts of a qcow2 image that identify its virtual disk.
///
/// Source: QEMU, `docs/interop/qcow2.rst`.
struct QcowImage: GuestDisk {
    /// Fields that the guest's writes do not change: version, size, cluster size, encryption and
    /// the place of the backing file's name.
    private let header: [UInt8]
    private let backing: [UInt8]
    let guestSize: Int
    let cluster: Int
    private let isEncrypted: Bool
    /// Place of the active L1 table, in bytes of the file.
    private let table: Int
    private let size: Int

    init?(_ file: borrowing OwnedDescriptor, size: Int) {
        guard size >= 104, let bytes = file.bytes(of: ByteRange(0, to: 104)),
            (9...21).contains(bytes.bigEndian(4, at: 20)),
            let guestSize = Int(exactly: bytes.bigEndian(8, at: 24)), guestSize > 0,
            guestSize <= Geometry.maximumSize,
            let table = Int(exactly: bytes.bigEndian(8, at: 40)), table >= 0, table < size
        else { return nil }
        header = Array(bytes[4..<36])
        self.guestSize = guestSize
        cluster = 1 << Int(bytes.bigEndian(4, at: 20))
        isEncrypted = bytes.bigEndian(4, at: 32) != 0
        self.table = table
        self.size = size
        let name = Int(clamping: bytes.bigEndian(8, at: 8))
        let length = min(Int(bytes.bigEndian(4, at: 16)), 1023)
        backing =
            name > 0 && name < size - length
            ? file.bytes(of: ByteRange(offset: name, length: length)) ?? [] : []
    }

    /// Bytes that the guest's writes do not change, and that differ between two disks.
    ///
    /// They are header, backing file and the identifiers on the guest's disk. If there are none, or
    /// the disk is encrypted, the first MiB of the file with its tables is used instead.
    func identity(_ file: borrowing OwnedDescriptor) -> [UInt8]? {
        let start = header + backing
        if !isEncrypted, let known = knownContent(guestStart(file)) { return start + known }
        return file.bytes(of: ByteRange(0, to: min(1 << 20, size))).map { start + $0 }
    }

    func place(of offset: Int, _ file: borrowing OwnedDescriptor) -> Int? {
        let entries = cluster / 8
        let number = offset / cluster
        guard let first = entry(number / entries, of: table, file),
            let second = entry(number % entries, of: Int(first & Self.offsetMask), file),
            second & Self.isCompressed == 0
        else { return nil }
        let place = Int(second & Self.offsetMask)
        return place > 0 && place < size ? place : nil
    }

    /// Bits 9 to 55 of an entry.
    private static let offsetMask: UInt64 = 0x00ff_ffff_ffff_fe00
    private static let isCompressed: UInt64 = 1 << 62

    private func entry(
        _ index: Int, of table: Int, _ file: borrowing OwnedDescriptor
    ) -> UInt64? {
        let place = table + 8 * index
        guard table > 0, place <= size - 8 else { return nil }
        return file.bytes(of: ByteRange(offset: place, length: 8))?.bigEndian(8, at: 0)
    }
}
