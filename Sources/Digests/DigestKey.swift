// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import COpenSSL
package import LinuxIO
internal import Synchronization

/// The random key of one run's digests, which is wiped from memory after use.
///
/// The client draws it after the compared data was written, and sends it to the server. All hashers
/// of the run share it. `DigestMethod.poly1305` explains why one key is sound.
package final class DigestKey: @unchecked Sendable {
    /// Bytes: r and s of Poly1305, 16 each (RFC 8439, section 2.5), or a key of AES-256.
    package static let byteCount = 32

    // Only the initializers write it, so it is safe to share.
    private let storage: UnsafeMutableRawBufferPointer
    /// For this processor's widest multiplication.
    private let ghashKey = Mutex<GhashKey?>(nil)

    private init(storage: UnsafeMutableRawBufferPointer) { self.storage = storage }

    /// The corresponding C function is `RAND_bytes`.
    package convenience init() throws(IOError) {
        self.init(storage: .allocate(byteCount: Self.byteCount, alignment: 1))
        guard RAND_bytes(storage.baseAddress, Int32(Self.byteCount)) == 1 else {
            throw .digest(
                "digest key", "draw random bytes", failedCall: "libcrypto has none to give")
        }
    }

    /// Throws unless there are `byteCount` bytes.
    package convenience init(_ bytes: some Collection<UInt8>) throws(IOError) {
        guard bytes.count == Self.byteCount else {
            throw .digest(
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

    /// - Parameter width: of `DigestMethod.gmacWidths`, except 0; only the widest key is kept.
    func ghash(width: Int) throws(IOError) -> GhashKey {
        try ghashKey.withLock { known throws(IOError) in
            if let known, width == GhashKey.widest { return known }
            let made = try withUnsafeBytes { bytes throws(IOError) in
                try GhashKey(bytes, width: width)
            }
            if width == GhashKey.widest { known = made }
            return made
        }
    }

    package func withUnsafeBytes<Result, Failure: Error>(
        _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try body(UnsafeRawBufferPointer(storage))
    }
}
