// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Digests
internal import LinuxIO
internal import WireProtocol

/// A SHA-256 digest of bytes that come one after the other.
///
/// It is safe to send, because one thread at a time uses it.
final class RunningDigest: @unchecked Sendable {
    private var hasher: BlockHasher

    init() throws(IOError) {
        hasher = try BlockHasher(DigestMethod(named: "sha256"), key: nil)
        try hasher.begin()
    }

    private init(copying other: borrowing BlockHasher) throws(IOError) {
        hasher = try other.copy()
    }

    func copy() throws(IOError) -> RunningDigest { try RunningDigest(copying: hasher) }

    func add(_ bytes: UnsafeRawBufferPointer) throws(IOError) { try hasher.add(bytes) }

    func add(_ bytes: [UInt8]) throws(IOError) {
        try bytes.withUnsafeBytes { bytes in
            Result { () throws(IOError) in try hasher.add(bytes) }
        }.get()
    }

    func addZeros(_ count: Int) throws(IOError) {
        var rest = count
        while rest > 0 {
            let length = min(rest, Self.zeros.count)
            try hasher.add(UnsafeRawBufferPointer(slice(Self.zeros.bytes, 0, length)))
            rest -= length
        }
    }

    /// The digest, 32 bytes; nothing can be added afterwards.
    func finish() throws(IOError) -> [UInt8] {
        var digest = [UInt8](repeating: 0, count: 32)
        try digest.withUnsafeMutableBytes { memory in
            Result { () throws(IOError) in try hasher.finish(into: memory) }
        }.get()
        return digest
    }

    /// The digest in hexadecimal.
    func finishAsText() throws(IOError) -> String { hexadecimal(try finish()) }

    /// Only read, so it costs address space but no memory.
    private static let zeros = AlignedBuffer(count: 1 << 20)
}

/// The first bytes of the SHA-256 digests of units, which prove a base.
struct UnitHasher: ~Copyable {
    private var hasher: BlockHasher
    private let size: Int
    private var digest = [UInt8](repeating: 0, count: 32)

    /// - Parameter size: bytes of each proof.
    init(size: Int) throws(IOError) {
        hasher = try BlockHasher(DigestMethod(named: "sha256"), key: nil)
        self.size = size
    }

    mutating func proof(of unit: UnsafeRawBufferPointer) throws(IOError) -> ArraySlice<UInt8> {
        try digest.withUnsafeMutableBytes { memory in
            Result { () throws(IOError) in try hasher.digest(of: unit, into: memory) }
        }.get()
        return digest[..<size]
    }
}
