// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import Digests
package import LinuxIO

/// The superblock of a dm-verity hash tree of format 1, without a salt, with SHA-256 and blocks of
/// 4096 bytes.
///
/// Source: `struct verity_sb` in cryptsetup's lib/verity/verity.c; numbers are little-endian.
package struct VeritySuperblock: Hashable, Sendable {
    package static let size = 512
    package static let magic = Array("verity\0\0".utf8)
    private static let algorithm = Array("sha256".utf8)

    /// 16 bytes.
    package var uuid: [UInt8]
    /// Whole blocks of the device.
    package var blocks: Int

    /// - Parameter root: the root hash, from which the UUID is derived, so that equal devices have
    ///   equal files.
    package init(blocks: Int, root: [UInt8]) throws(IOError) {
        var uuid = Array(try sha256(of: Array("blkferry verity".utf8) + root).prefix(16))
        // RFC 9562, 5.8: version 8, for other uses.
        uuid[6] = uuid[6] & 0x0f | 0x80
        uuid[8] = uuid[8] & 0x3f | 0x80
        self.uuid = uuid
        self.blocks = blocks
    }

    package var bytes: [UInt8] {
        var bytes = Self.magic
        bytes += Self.bytes(of: UInt32(1))  // version
        bytes += Self.bytes(of: UInt32(1))  // hash type: normal, not that of Chrome OS
        bytes += uuid
        bytes += Self.algorithm + [UInt8](repeating: 0, count: 32 - Self.algorithm.count)
        bytes += Self.bytes(of: UInt32(VerityShape.block))  // of the device
        bytes += Self.bytes(of: UInt32(VerityShape.block))  // of the tree
        bytes += Self.bytes(of: UInt64(blocks))
        // No salt, and padding.
        return bytes + [UInt8](repeating: 0, count: Self.size - bytes.count)
    }

    /// - Parameter bytes: at least `size`.
    /// - Throws: the reason why it is no superblock, or one of another kind.
    package init(_ bytes: [UInt8]) throws(WireError) {
        guard bytes.count >= Self.size, bytes.starts(with: Self.magic) else {
            throw WireError("it is no file of blkferry digest or veritysetup")
        }
        func number(_ range: Range<Int>) -> UInt64 {
            bytes[range].reversed().reduce(0) { $0 &* 256 | UInt64($1) }
        }
        guard number(8..<12) == 1, number(12..<16) == 1 else {
            throw WireError("its hash tree is not of version 1 and type 1")
        }
        uuid = Array(bytes[16..<32])
        guard bytes[32..<64].prefix(while: { $0 != 0 }).elementsEqual(Self.algorithm),
            bytes[32..<64].drop(while: { $0 != 0 }).allSatisfy({ $0 == 0 })
        else { throw WireError("its hash algorithm is not sha256") }
        guard number(64..<68) == VerityShape.block, number(68..<72) == VerityShape.block else {
            throw WireError("its blocks do not have \(VerityShape.block) bytes")
        }
        guard let blocks = Int(exactly: number(72..<80)),
            blocks <= Geometry.maximumSize / VerityShape.block
        else { throw WireError("it is of a device that is too large") }
        self.blocks = blocks
        guard number(80..<82) == 0 else { throw WireError("its hash tree has a salt") }
    }

    private static func bytes(of number: some FixedWidthInteger) -> [UInt8] {
        withUnsafeBytes(of: number.littleEndian) { Array($0) }
    }
}
