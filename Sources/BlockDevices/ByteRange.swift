// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

/// A run of bytes of a device.
package struct ByteRange: Hashable, Sendable {
    /// Bytes from the device's start.
    package var offset: Int
    /// Bytes.
    package var length: Int

    package init(offset: Int, length: Int) {
        precondition(offset >= 0 && length >= 0)
        self.offset = offset
        self.length = length
    }

    package init(_ offset: Int, to end: Int) { self.init(offset: offset, length: end - offset) }

    /// The first byte after the range.
    package var end: Int { offset + length }

    package var isEmpty: Bool { length == 0 }

    /// Whether the two have a byte in common.
    package func overlaps(_ other: ByteRange) -> Bool {
        offset < other.end && other.offset < end && !isEmpty && !other.isEmpty
    }

    /// The bytes that both have; `nil` when there are none.
    package func intersection(_ other: ByteRange) -> ByteRange? {
        guard overlaps(other) else { return nil }
        return ByteRange(max(offset, other.offset), to: min(end, other.end))
    }

    /// The range in parts of a length, in bytes; the last one may be shorter.
    package func pieces(of length: Int) -> [ByteRange] {
        stride(from: offset, to: end, by: length).map { ByteRange($0, to: min($0 + length, end)) }
    }
}

extension ByteRange: CustomStringConvertible {
    package var description: String { "offset \(offset), length \(length)" }
}

/// A run of adjacent blocks that differ: what a transfer consists of.
package struct Extent: Hashable, Sendable {
    package enum Kind: Hashable, Sendable {
        /// The source's bytes are to be written.
        case data
        /// The source has nothing but zeros here.
        case zero
    }

    package var range: ByteRange
    package var kind: Kind

    package init(_ range: ByteRange, _ kind: Kind) {
        self.range = range
        self.kind = kind
    }
}
