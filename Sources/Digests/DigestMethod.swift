// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CGhash
internal import COpenSSL
package import LinuxIO

/// GMAC, Poly1305, or one of libcrypto's message digests, which need no key.
///
/// An attacker with write access to the devices can construct different blocks with the same `md5`
/// or `sha1` digest.
package struct DigestMethod: Hashable, Sendable {
    /// libcrypto's short name in lower case, such as `sha512-256`.
    package let name: String
    package let byteCount: Int
    package let isKeyed: Bool

    /// GMAC with a random key of AES-256 and an IV of twelve zero bytes (NIST SP 800-38D).
    ///
    /// It serves as a keyed universal hash under the conditions of `poly1305`. A digest is
    /// GHASH_H(block) combined with a mask that is the same on both sides. The difference of two
    /// blocks of up to n bytes is a polynomial in H of degree ⌈n/16⌉ + 1. At most that many of the
    /// 2^128 values of H are roots. H is the encryption of zeros with the random key, so without
    /// the key it is indistinguishable from random.
    package static let gmac = DigestMethod(name: "gmac", byteCount: 16, isKeyed: true)

    /// Poly1305 with a random key, the fastest method if the processor cannot multiply without
    /// carry.
    ///
    /// It serves as a keyed universal hash. Two different blocks of n bytes, whatever they contain,
    /// have the same digest under at most n/2^107 of all keys (D. J. Bernstein, "The Poly1305-AES
    /// message-authentication code", 2005, section 3: at most 8⌈n/16⌉ of the 2^106 values of r that
    /// clamping leaves). This has three conditions, which hold here. Both sides use the same key.
    /// The key is drawn at random after the data was written. Digests are compared only with
    /// digests of the same run.
    ///
    /// One key serves all blocks of a run, which an authenticator must not do. From two digests
    /// with one key an attacker can compute r and forge, so RFC 8439, section 2.5, requires a
    /// unique pair (r, s), though r may stay. For comparing blocks one key is sound. A digest is
    /// h_r(block) + s modulo 2^128, so s cancels in a comparison, and the bound is over r alone,
    /// for every pair of blocks. These digests therefore do not prove who computed them. They are
    /// never stored, because an attacker with the key can write data that collides.
    package static let poly1305 = DigestMethod(name: "poly1305", byteCount: 16, isKeyed: true)

    private init(name: String, byteCount: Int, isKeyed: Bool) {
        self.name = name
        self.byteCount = byteCount
        self.isKeyed = isKeyed
    }

    /// Looks a method up by name, ignoring case.
    ///
    /// It accepts all names of libcrypto (`sha256`, `SHA2-256`, an OID) and of Python's hashlib
    /// (`sha3_256`, `blake2b`). It refuses SHAKE and the like, for which later versions of
    /// libcrypto choose no output size.
    ///
    /// - Throws: an error with the available methods if libcrypto lacks this one or openssl.cnf(5)
    ///   disables it.
    package init(named name: String) throws(IOError) {
        do throws(IOError) { self = try Self.find(name) } catch {
            var error = error
            let names = Self.available().map(\.name).joined(separator: ", ")
            error.advice = "this libcrypto provides \(names.isEmpty ? "none" : names)"
            throw error
        }
    }

    /// Sorted by name.
    ///
    /// The corresponding C function is `EVP_MD_do_all_provided`.
    package static func available() -> [DigestMethod] {
        var names = [gmac.name, poly1305.name]
        withUnsafeMutablePointer(to: &names) { names in
            EVP_MD_do_all_provided(
                nil,
                { digest, names in
                    guard let name = EVP_MD_get0_name(digest) else { return }
                    names?.assumingMemoryBound(to: [String].self).pointee
                        .append(String(cString: name))
                }, names)
        }
        return Set(names.compactMap { try? find($0) }).sorted { $0.name < $1.name }
    }
}

extension DigestMethod {
    /// Names of hashlib that libcrypto spells differently; in all others `_` becomes `-`.
    private static let aliases = ["blake2b": "blake2b512", "blake2s": "blake2s256"]

    private static func find(_ name: String) throws(IOError) -> DigestMethod {
        // Names also come from the network: a NUL would end a C string, and other bytes could
        // garble a message.
        guard (1...64).contains(name.utf8.count), name.utf8.allSatisfy(isNameByte) else {
            let start = String(String.UnicodeScalarView(name.unicodeScalars.prefix(64)))
            throw .digest(start.debugDescription, "digest", reason: "not a digest's name")
        }
        let spelling = name.lowercased()
        for method in [gmac, poly1305] where spelling == method.name {
            EVP_MAC_free(try method.fetchMAC())
            return method
        }
        let dashed = String(spelling.map { $0 == "_" ? "-" : $0 })
        let digest = try fetchDigest(aliases[spelling] ?? dashed, writtenAs: name)
        defer { EVP_MD_free(digest) }
        guard EVP_MD_get_flags(digest) & UInt(EVP_MD_FLAG_XOF) == 0 else {
            throw .digest(name, "digest", reason: "its output has no fixed size")
        }
        // libcrypto's NULL digest.
        guard EVP_MD_get_size(digest) > 0 else {
            throw .digest(name, "digest", reason: "its output is empty")
        }
        return DigestMethod(
            name: canonicalName(of: digest) ?? dashed, byteCount: Int(EVP_MD_get_size(digest)),
            isKeyed: false)
    }

    private static func isNameByte(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"),
            UInt8(ascii: "/"), UInt8(ascii: "."):
            return true
        default:
            return false
        }
    }

    /// The short name in libcrypto's object table, or else the provider's name.
    ///
    /// `EVP_MD_get0_name` returns the name that was registered first: `SHA2-256` in one version,
    /// `SHA256` in another.
    private static func canonicalName(of digest: OpaquePointer) -> String? {
        let number = EVP_MD_get_type(digest)
        let name = number == NID_undef ? EVP_MD_get0_name(digest) : OBJ_nid2sn(number)
        return name.map { String(cString: $0).lowercased() }
    }

    /// The caller frees the result.
    ///
    /// The corresponding C function is `EVP_MD_fetch`.
    static func fetchDigest(
        _ name: String, writtenAs original: String
    ) throws(IOError) -> OpaquePointer {
        guard let digest = EVP_MD_fetch(nil, name, nil) else {
            throw .digest(original, "digest", failedCall: "not provided by this libcrypto")
        }
        return digest
    }

    /// The caller frees the result.
    ///
    /// The corresponding C function is `EVP_MAC_fetch`.
    func fetchMAC() throws(IOError) -> OpaquePointer {
        guard let mac = EVP_MAC_fetch(nil, name.uppercased(), nil) else {
            throw .digest(name, "digest", failedCall: "not provided by this libcrypto")
        }
        return mac
    }
}

extension DigestMethod {
    /// Methods that are faster here than `poly1305`, the fastest first; both machines need the
    /// method.
    package static let fasterOnes = cg_is_fast() ? [gmac] : []

    /// How many blocks of 16 bytes this processor can multiply at once for GMAC; 0 is libcrypto.
    package static let gmacWidths = [0, 1, 2, 4].filter { $0 <= GhashKey.widest }
}
