// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import COpenSSL
package import LinuxIO

/// Takes the same time wherever the secrets differ; their lengths are not secret.
///
/// The corresponding C function is `CRYPTO_memcmp`.
package func areEqualInConstantTime(_ first: [UInt8], _ second: [UInt8]) -> Bool {
    first.count == second.count && CRYPTO_memcmp(first, second, first.count) == 0
}

/// The SHA-256 digest (FIPS 180-4) of a short text; 32 bytes.
package func sha256(of text: [UInt8]) throws(IOError) -> [UInt8] {
    try text.withUnsafeBytes { bytes in
        Result { () throws(IOError) in try sha256(of: bytes) }
    }.get()
}

/// The SHA-256 digest (FIPS 180-4) of bytes in memory; 32 bytes.
///
/// The corresponding C function is `EVP_Digest`.
package func sha256(of bytes: UnsafeRawBufferPointer) throws(IOError) -> [UInt8] {
    var digest = [UInt8](repeating: 0, count: 32)
    var count: UInt32 = 0
    guard
        EVP_Digest(bytes.baseAddress, bytes.count, &digest, &count, EVP_sha256(), nil) > 0,
        count == 32
    else {
        ERR_clear_error()
        throw .digest("sha256", "compute", reason: "libcrypto failed")
    }
    return digest
}
