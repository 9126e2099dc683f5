// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package struct ByteRange: Hashable, Sendable {
    /// Bytes from the start of the device.
    package var offset: Int
    /// Bytes.
    package var length: Int

    package init(offset: Int, length: Int) {
        precondition(offset >= 0 && length >= 0)
        self.offset = offset
        self.length = length
    }

    package init(_ offset: Int, to end: Int) { self.init(offset: offset, length: end - offset) }

    package var end: Int { offset + length }

    package var isEmpty: Bool { length == 0 }

    package func overlaps(_ other: ByteRange) -> Bool {
        offset < other.end && other.offset < end && !isEmpty && !other.isEmpty
    }

    package func intersection(_ other: ByteRange) -> ByteRange? {
        guard overlaps(other) else { return nil }
        return ByteRange(max(offset, other.offset), to: min(end, other.end))
    }

    /// What is left of the range without the bytes of another: up to two ranges, ascending.
    package func without(_ other: ByteRange) -> [ByteRange] {
        guard let common = intersection(other) else { return isEmpty ? [] : [self] }
        return [ByteRange(offset, to: common.offset), ByteRange(common.end, to: end)]
            .filter { !$0.isEmpty }
    }

    /// Splits the range into parts of `length` bytes; the last one may be shorter.
    package func pieces(of length: Int) -> [ByteRange] {
        stride(from: offset, to: end, by: length).map {
            ByteRange(offset: $0, length: min(length, end - $0))
        }
    }
}

extension ByteRange: CustomStringConvertible {
    package var description: String { "offset \(offset), length \(length)" }
}

/// A run of adjacent blocks that differ.
package struct Extent: Hashable, Sendable {
    package enum Kind: Hashable, Sendable {
        /// The bytes of the source must be written.
        case data
        /// The source contains only zeros here.
        case zero
    }

    package var range: ByteRange
    package var kind: Kind

    package init(_ range: ByteRange, _ kind: Kind) {
        self.range = range
        self.kind = kind
    }
}
