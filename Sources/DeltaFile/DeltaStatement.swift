// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import LinuxIO
internal import WireProtocol

/// What the trailer of a delta says about the two states; see docs/deltas.md.
package struct DeltaStatement: Codable, Hashable, Sendable {
    package struct State: Codable, Hashable, Sendable {
        /// As the user named the device.
        package var name: String
        /// Bytes.
        package var size: Int
        /// Of all its bytes, in hexadecimal.
        package var digest: String

        package init(name: String, size: Int, digest: String) {
            self.name = name
            self.size = size
            self.digest = digest
        }
    }

    package enum BaseDigest: String, Codable, Sendable {
        /// SHA-256 of all bytes of the base.
        case sha256
        /// The root hash of its dm-verity tree, without salt.
        case verity
    }

    package var base: State
    package var baseDigest: BaseDigest
    /// Its digest is SHA-256 of all its bytes.
    package var result: State
    /// Bytes that each proof covers.
    package var unit: Int
    /// Bytes of each proof: the start of the unit's SHA-256 digest.
    package var proof: Int
    /// SHA-256 of what the base has behind the end of a smaller result, in hexadecimal.
    package var tail: String?
    package var records: Int
    /// Bytes of data, and of zeros.
    package var data: Int
    package var zeros: Int
    /// Seconds since 1970.
    package var made: Int

    /// The larger of both sizes, in bytes; the smaller state counts as followed by zeros.
    var span: Int { max(base.size, result.size) }
}

/// How the trailer lies behind the stream: its start, the text, the proofs, and the end.
enum DeltaTrailer {
    static let magic = Array("BLKFDLTA".utf8)
    static let version = 1
    static let startSize = 16
    static let endMagic = Array("BLKFDEND".utf8)
    static let sealSize = 32
    /// The length of the stream, that of the proofs, a magic number, and the seal.
    static let endSize = 24 + sealSize
    /// Bytes of the text at most; it bounds what a damaged file makes a reader take.
    static let longestText = 1 << 20

    static func start(_ statement: DeltaStatement) -> [UInt8] {
        let text = WireJSON.encode(statement)
        precondition(text.count <= longestText)
        return magic + word(version) + word(text.count) + text
    }

    /// The end without the seal, which is SHA-256 of all bytes before it.
    static func end(stream: Int, proofs: Int) -> [UInt8] {
        RbdDiff.bytes(stream) + RbdDiff.bytes(proofs) + endMagic
    }

    private static func word(_ number: Int) -> [UInt8] {
        withUnsafeBytes(of: UInt32(number).littleEndian, Array.init)
    }
}

/// What proves that a record's place still has the base's bytes.
enum UnitProof {
    /// The base has only zeros there.
    static let zeros: UInt8 = 0
    /// A digest for each unit follows.
    static let digests: UInt8 = 1

    /// Bytes that a proof of blkferry's own covers: what a disk writes as a whole.
    ///
    /// So an apply that the power cut tore leaves units of the base and of the result only.
    static let usualUnit = 512
    /// Bytes of it.
    static let usualSize = 16
}
