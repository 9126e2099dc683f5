// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

/// Ceph's `rbd diff v1`: a header, records of metadata, records of data, and an end record.
///
/// Source: Ceph's documentation, dev/rbd-diff. All numbers are little-endian.
enum RbdDiff {
    static let header = Array("rbd diff v1\n".utf8)
    static let headerOfVersion2 = Array("rbd diff v2\n".utf8)

    enum Tag: UInt8 {
        /// `f`: the name of the snapshot that the stream starts from.
        case fromSnapshot = 0x66
        /// `t`: the name of the snapshot that it leads to.
        case toSnapshot = 0x74
        /// `s`: the size of the result.
        case size = 0x73
        /// `w`: offset, length, and as many bytes.
        case data = 0x77
        /// `z`: offset and length.
        case zeros = 0x7A
        /// `e`
        case end = 0x65
    }

    /// Bytes of a record of data at most, that of an object of Ceph.
    ///
    /// `rbd import-diff` takes as much memory as a record has.
    static let longestData = 4 << 20
    /// Bytes of a record of zeros at most; librbd's lengths have 31 bits.
    static let longestZeros = 1 << 30
    /// Bytes of a snapshot's name at most, as in `rbd import-diff`.
    static let longestName = 4096
    /// The tag, an offset and a length.
    static let headSize = 17

    static func head(_ tag: Tag, _ numbers: Int...) -> [UInt8] {
        [tag.rawValue] + numbers.flatMap(bytes)
    }

    static func bytes(_ number: Int) -> [UInt8] {
        withUnsafeBytes(of: UInt64(number).littleEndian, Array.init)
    }
}
