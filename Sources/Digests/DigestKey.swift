// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import COpenSSL
internal import Synchronization

/// The random key of one run's digests, wiped from memory when nobody holds it any more.
///
/// The client draws it when a run begins, after the data it compares was written, and sends it to
/// the server; every hasher of the run shares it. `DigestMethod.poly1305` says what rests on that.
package final class DigestKey: @unchecked Sendable {
    /// Bytes: r and s of Poly1305, 16 each (RFC 8439, section 2.5), or a key of AES-256.
    package static let byteCount = 32

    // Written by the initialisers alone, and so safe to share.
    private let storage: UnsafeMutableRawBufferPointer
    /// What GMAC works with where this processor has instructions for it.
    private let ghashKey = Mutex<GhashKey?>(nil)

    private init(storage: UnsafeMutableRawBufferPointer) { self.storage = storage }

    /// Draws a key.
    ///
    /// The corresponding C function is `RAND_bytes`.
    ///
    /// - Throws: when libcrypto has no random bytes to give.
    package convenience init() throws(DigestError) {
        self.init(storage: .allocate(byteCount: Self.byteCount, alignment: 1))
        guard RAND_bytes(storage.baseAddress, Int32(Self.byteCount)) == 1 else {
            throw DigestError(
                "digest key", "draw random bytes", failedCall: "libcrypto has none to give")
        }
    }

    /// Takes a key that the other side drew.
    ///
    /// - Parameter bytes: all of the key.
    /// - Throws: when they are not exactly `byteCount`.
    package convenience init(_ bytes: some Collection<UInt8>) throws(DigestError) {
        guard bytes.count == Self.byteCount else {
            throw DigestError(
                "digest key", "take",
                reason: "it has \(bytes.count) bytes, not \(Self.byteCount)")
        }
        self.init(storage: .allocate(byteCount: Self.byteCount, alignment: 1))
        storage.copyBytes(from: bytes)
    }

    deinit {
        OPENSSL_cleanse(storage.baseAddress, storage.count)
        storage.deallocate()
    }

    /// The key as GMAC needs it, made when it is first asked for.
    func ghash() throws(DigestError) -> GhashKey {
        try ghashKey.withLock { known throws(DigestError) in
            if let known { return known }
            let made = try withUnsafeBytes { bytes throws(DigestError) in try GhashKey(bytes) }
            known = made
            return made
        }
    }

    /// Reads the key: for sending it, and for libcrypto.
    ///
    /// - Parameter body: gets the bytes; they must not be used after it returns.
    /// - Returns: what the body does.
    /// - Throws: what the body throws.
    package func withUnsafeBytes<Result, Failure: Error>(
        _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try body(UnsafeRawBufferPointer(storage))
    }
}
