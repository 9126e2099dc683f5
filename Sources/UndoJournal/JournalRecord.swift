// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices
internal import Digests
package import LinuxIO

/// The head of a record in a journal; its payload follows, and the same head again.
///
/// One of the two tells which range a damaged record was about. See docs/undo.md.
package struct JournalRecord: Hashable, Sendable {
    package enum Kind: UInt32, Sendable {
        /// The payload has the old bytes of a range.
        case data = 1
        /// The range had zeros; there is no payload.
        case zeros = 2
        /// The run has ended in order; the payload is a `JournalEnd`.
        case end = 3
        /// The target is again what it was.
        case rolledBack = 5
        /// The target is about to grow, or was created, from the size that is the range's offset.
        case growth = 6
        /// A rollback has begun; all records before it are complete.
        case rollback = 7
    }

    static let size = 120
    static let magic: [UInt8] = Array("BFUR".utf8)
    /// Bytes; longer than any transfer.
    ///
    /// It bounds what a damaged record makes a reader take.
    static let longestPayload = 64 << 20
    private static let digestPlace = 56
    private static let sealPlace = 88
    private static let digestSize = 32

    package var kind: Kind
    /// From 1, without gaps.
    var sequence: UInt64
    /// On the target; empty for kinds without a range.
    package var range: ByteRange
    /// Bytes.
    var payload: Int
    /// Where the record before starts in the journal; 0 for none.
    var previous: Int
    /// Up to here the journal was on the medium before this record was written.
    var durable: Int
    /// SHA-256 of the payload.
    var digest: [UInt8]

    /// Bytes in the journal, with both heads.
    var length: Int { 2 * Self.size + payload }

    /// Whether bytes are those of the payload.
    package func holds(_ bytes: [UInt8]) throws(IOError) -> Bool { try sha256(of: bytes) == digest }

    /// - Parameter identifier: of the journal; a record of another journal does not match it.
    func bytes(_ identifier: [UInt8]) throws(IOError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Self.size)
        bytes.replaceSubrange(..<Self.magic.count, with: Self.magic)
        let numbers = [
            sequence, UInt64(range.offset), UInt64(range.length), UInt64(payload),
            UInt64(previous), UInt64(durable),
        ]
        bytes.withUnsafeMutableBytes { memory in
            memory.storeBytes(of: kind.rawValue.littleEndian, toByteOffset: 4, as: UInt32.self)
            for (index, number) in numbers.enumerated() {
                memory.storeBytes(
                    of: number.littleEndian, toByteOffset: 8 + 8 * index, as: UInt64.self)
            }
        }
        bytes.replaceSubrange(Self.digestPlace..<Self.sealPlace, with: digest)
        let seal = try sha256(of: identifier + bytes[..<Self.sealPlace])
        bytes.replaceSubrange(Self.sealPlace..., with: seal)
        return bytes
    }
}

extension JournalRecord {
    /// `nil` if the bytes are no record of this journal.
    ///
    /// - Parameter bytes: `size` bytes.
    init?(_ bytes: [UInt8], _ identifier: [UInt8]) throws(IOError) {
        guard bytes.starts(with: Self.magic),
            try sha256(of: identifier + bytes[..<Self.sealPlace])
                .elementsEqual(bytes[Self.sealPlace...])
        else { return nil }
        let (code, numbers) = bytes.withUnsafeBytes { memory in
            (
                UInt32(littleEndian: memory.loadUnaligned(fromByteOffset: 4, as: UInt32.self)),
                (0..<6).map {
                    UInt64(
                        littleEndian: memory.loadUnaligned(
                            fromByteOffset: 8 + 8 * $0, as: UInt64.self))
                }
            )
        }
        // Sealed numbers are those that were written; the limits are for a journal that was made up.
        guard let kind = Kind(rawValue: code),
            numbers[1...].allSatisfy({ $0 <= UInt64(Geometry.maximumSize) }),
            numbers[3] <= UInt64(Self.longestPayload),
            kind != .data || numbers[2] == numbers[3]
        else { return nil }
        self.kind = kind
        sequence = numbers[0]
        range = ByteRange(offset: Int(numbers[1]), length: Int(numbers[2]))
        payload = Int(numbers[3])
        previous = Int(numbers[4])
        durable = Int(numbers[5])
        digest = Array(bytes[Self.digestPlace..<Self.sealPlace])
    }
}

/// How a run has ended.
package struct JournalEnd: Codable, Hashable, Sendable {
    /// Whether the target is the replica.
    package var isComplete: Bool
    /// The target's persistent change counter, which shows whether a program has written since;
    /// `nil` if it has none.
    package var counter: [Int]?

    package init(isComplete: Bool, counter: [Int]?) {
        self.isComplete = isComplete
        self.counter = counter
    }
}
