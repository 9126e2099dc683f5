// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CGhash
internal import COpenSSL
internal import LinuxIO

/// A GMAC key for this processor's instructions: powers of the hash key, and the mask.
final class GhashKey: @unchecked Sendable {
    /// The blocks of 16 bytes that this processor multiplies at once: 4, 2, 1, or 0 if it has no
    /// instruction for it.
    static let widest = Int(cg_widest())

    // Only the initializer writes it, so it is safe to share.
    private let powers: OpaquePointer
    /// The cipher's output for the IV and the counter 1.
    private let mask: (UInt64, UInt64)

    /// - Parameters:
    ///   - key: a key of AES-256.
    ///   - width: of `DigestMethod.gmacWidths`, except 0.
    init(_ key: UnsafeRawBufferPointer, width: Int) throws(IOError) {
        precondition(1...Self.widest ~= width && key.count == DigestKey.byteCount)
        // A block of zeros and the first counter block, twelve zeros and 1 (SP 800-38D, 7.1).
        var blocks = [UInt8](repeating: 0, count: 31) + [1]
        try Self.encrypt(&blocks, key)
        let mask = blocks.withUnsafeBytes {
            (
                $0.loadUnaligned(fromByteOffset: 16, as: UInt64.self),
                $0.loadUnaligned(fromByteOffset: 24, as: UInt64.self)
            )
        }
        let powers = blocks.withUnsafeBufferPointer { cg_make_key($0.baseAddress, Int32(width)) }
        blocks.withUnsafeMutableBytes { OPENSSL_cleanse($0.baseAddress, $0.count) }
        guard let powers else {
            throw .digest("gmac", "prepare the key", reason: "no memory for it")
        }
        self.powers = powers
        self.mask = mask
    }

    deinit { cg_free_key(powers) }

    /// The corresponding C functions are `EVP_EncryptInit_ex2` and `EVP_EncryptUpdate`.
    private static func encrypt(
        _ blocks: inout [UInt8], _ key: UnsafeRawBufferPointer
    ) throws(IOError) {
        let failure = IOError.digest("gmac", "prepare the key", failedCall: "failed in libcrypto")
        guard let cipher = EVP_CIPHER_fetch(nil, "AES-256-ECB", nil) else { throw failure }
        defer { EVP_CIPHER_free(cipher) }
        guard let context = EVP_CIPHER_CTX_new() else { throw failure }
        defer { EVP_CIPHER_CTX_free(context) }
        let count = Int32(blocks.count)
        let done = blocks.withUnsafeMutableBufferPointer { blocks in
            var length: Int32 = 0
            return EVP_EncryptInit_ex2(
                context, cipher, key.baseAddress?.assumingMemoryBound(to: UInt8.self), nil, nil)
                == 1
                && EVP_EncryptUpdate(
                    context, blocks.baseAddress, &length, blocks.baseAddress, count) == 1
                && length == count
        }
        guard done else { throw failure }
    }

    /// - Parameter digest: gets 16 bytes at its start.
    func digest(
        of parts: some Collection<UnsafeRawBufferPointer>,
        into digest: UnsafeMutableRawBufferPointer
    ) {
        var state = cg_state()
        for part in parts { cg_update(powers, &state, part.baseAddress, part.count) }
        cg_finish(powers, &state, digest.baseAddress?.assumingMemoryBound(to: UInt8.self))
        for (index, part) in [mask.0, mask.1].enumerated() {
            let hash = digest.loadUnaligned(fromByteOffset: 8 * index, as: UInt64.self)
            digest.storeBytes(of: hash ^ part, toByteOffset: 8 * index, as: UInt64.self)
        }
    }
}
