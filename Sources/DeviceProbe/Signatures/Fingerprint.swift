// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import Digests
internal import LinuxIO
internal import SystemPackage

/// Identifies a signature without an identifier by the SHA-256 of the bytes that describe it.
enum Fingerprint {
    /// Bytes of a superblock with its surroundings.
    static let superblock = 4096

    /// The bytes that distinguish a signature from others of its kind, on a device of `size` bytes.
    ///
    /// Most superblocks lie within the block of their magic number.
    static func ranges(of signature: Signature, size: Int) -> [ByteRange] {
        let whole = ByteRange(0, to: size)
        guard let place = signature.places.first else { return [] }
        let block = ByteRange(offset: place / superblock * superblock, length: superblock)
        let wanted: [ByteRange]
        switch (signature.usage, signature.type) {
        case (.partitionTable, _):
            wanted = [ByteRange(offset: place / 512 * 512, length: 512)]
        case (_, "swap"), (_, "swsuspend"):
            // The magic number ends the page, which may have 64 KiB; the rest is at the page's
            // start.
            wanted = [ByteRange(0, to: block.end)]
        case (.raid, "linux_raid_member"):
            // Version 0.90: the superblock has the number of the member.
            wanted = [block]
        case (.raid, _):
            // The superblocks of most firmware are equal on all members, so some content counts as
            // well.
            wanted = [
                ByteRange(0, to: min(64 << 10, size)),
                ByteRange(max(0, size - (1 << 20)), to: size),
            ]
        default: wanted = [block]
        }
        return wanted.compactMap { $0.intersection(whole) }
    }

    /// Place of the volume's own metadata, to which the boot sector points.
    ///
    /// Source: libbde, "BitLocker Drive Encryption (BDE) format": the boot sector has the offset of
    /// the first metadata block at 176, if Windows 7 or later has made the volume.
    static func metadata(ofBitLocker bootSector: [UInt8], size: Int) -> ByteRange? {
        guard bootSector.count >= 184 else { return nil }
        let offset = bootSector[176..<184].reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        guard offset > 0, let place = Int(exactly: offset), place < size else { return nil }
        return ByteRange(offset: place, length: min(superblock, size - place))
    }

    static func digest(of bytes: [UInt8]) -> String? {
        guard let digest = try? sha256(of: bytes) else { return nil }
        let digits = Array("0123456789abcdef")
        return String(digest.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] })
    }
}

extension OwnedDescriptor {
    /// The bytes of a range; `nil` unless all of them can be read.
    borrowing func bytes(of range: ByteRange) -> [UInt8]? {
        let buffer = AlignedBuffer(count: max(range.length, 1))
        var done = 0
        while done < range.length {
            let rest = UnsafeMutableRawBufferPointer(rebasing: buffer.bytes[done..<range.length])
            guard let count = try? readOnce(into: rest, at: range.offset + done), count > 0 else {
                return nil
            }
            done += count
        }
        return Array(buffer.bytes[..<range.length])
    }
}
