// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import COpenSSL

/// A way to compute digests: GMAC, Poly1305, or one of libcrypto's message digests.
///
/// The message digests need no key. Of them, `md5` and `sha1` do not hold against someone who may
/// write to the devices: two different blocks with one digest can be made at will.
package struct DigestMethod: Hashable, Sendable {
    /// The name both sides know it by, in lower case: libcrypto's short name, such as `sha512-256`.
    package let name: String
    /// Size of a digest in bytes.
    package let byteCount: Int
    /// Whether a hasher needs a `DigestKey`.
    package let isKeyed: Bool

    /// GMAC under a random key of AES-256 and an IV of twelve zero bytes (NIST SP 800-38D).
    ///
    /// It serves as a keyed universal hash, on the conditions that `poly1305` tells. A digest is
    /// GHASH_H(block) and a mask which both sides' digests have in common; the difference of two
    /// blocks of up to n bytes is a polynomial in H of degree ⌈n/16⌉ + 1, which as many values of the
    /// 2^128 at most are a root of. H is what AES makes of zeros under the random key: as good as
    /// random, to whoever does not know that.
    package static let gmac = DigestMethod(name: "gmac", byteCount: 16, isKeyed: true)

    /// Poly1305 under a random key: the fastest where GMAC has no instructions of its own.
    ///
    /// It serves as a keyed universal hash. Two different blocks of n bytes, whatever they contain,
    /// have the same digest under at most n/2^107 of all keys (D. J. Bernstein, "The Poly1305-AES
    /// message-authentication code", 2005, section 3: 8⌈n/16⌉ values of r at most, of the 2^106
    /// that clamping leaves). Three things are needed for that, and hold here: both sides use the
    /// same key, it is drawn at random after the data was written, and digests are compared only
    /// with digests of the same run.
    ///
    /// One key serves all blocks of a run. An authenticator must not do that: with two digests
    /// under one key an attacker solves for r and forges, so that RFC 8439, section 2.5, wants the
    /// pair (r, s) unique, though r may stay. For telling blocks apart it is sound: a digest is
    /// h_r(block) + s modulo 2^128, s cancels when two are compared, and the bound is over r alone,
    /// for every pair of blocks. So these digests prove nothing about who computed them, and are
    /// never stored: data written later can be made to collide by whoever knows the key.
    package static let poly1305 = DigestMethod(name: "poly1305", byteCount: 16, isKeyed: true)

    private init(name: String, byteCount: Int, isKeyed: Bool) {
        self.name = name
        self.byteCount = byteCount
        self.isKeyed = isKeyed
    }

    /// Looks a method up by name.
    ///
    /// Case does not matter. Every name libcrypto has for a digest will do (`sha256`, `SHA2-256`,
    /// an OID), and so will those of Python's hashlib (`sha3_256`, `blake2b`). SHAKE and its like
    /// are refused: their output has no size of its own, and later versions of libcrypto no longer
    /// make one up.
    ///
    /// - Throws: when libcrypto does not provide it, also because it is switched off by
    ///   openssl.cnf(5); the advice lists what there is.
    package init(named name: String) throws(DigestError) {
        do throws(DigestError) { self = try Self.find(name) } catch {
            var error = error
            let names = Self.available().map(\.name).joined(separator: ", ")
            error.advice = "this libcrypto provides \(names.isEmpty ? "none" : names)"
            throw error
        }
    }

    /// Every method that this libcrypto provides, sorted by name.
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
    /// Names of hashlib that libcrypto spells another way; for the rest, `_` stands for `-`.
    private static let aliases = ["blake2b": "blake2b512", "blake2s": "blake2s256"]

    private static func find(_ name: String) throws(DigestError) -> DigestMethod {
        // Names come from the network too: no NUL, at which C would stop reading; nothing that
        // would garble a message.
        guard (1...64).contains(name.utf8.count), name.utf8.allSatisfy(isNameByte) else {
            let start = String(String.UnicodeScalarView(name.unicodeScalars.prefix(64)))
            throw DigestError(start.debugDescription, "digest", reason: "not a digest's name")
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
            throw DigestError(name, "digest", reason: "its output has no fixed size")
        }
        // libcrypto's NULL digest.
        guard EVP_MD_get_size(digest) > 0 else {
            throw DigestError(name, "digest", reason: "its output is empty")
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

    /// The short name in libcrypto's table of objects; a provider's own where it is not in there.
    ///
    /// `EVP_MD_get0_name` alone will not do: it gives whichever of a digest's names was registered
    /// first, `SHA2-256` in one version and `SHA256` in another.
    private static func canonicalName(of digest: OpaquePointer) -> String? {
        let number = EVP_MD_get_type(digest)
        let name = number == NID_undef ? EVP_MD_get0_name(digest) : OBJ_nid2sn(number)
        return name.map { String(cString: $0).lowercased() }
    }

    /// Gets a message digest from libcrypto's providers; the caller frees it.
    ///
    /// The corresponding C function is `EVP_MD_fetch`.
    static func fetchDigest(
        _ name: String, writtenAs original: String
    ) throws(DigestError) -> OpaquePointer {
        guard let digest = EVP_MD_fetch(nil, name, nil) else {
            throw DigestError(original, "digest", failedCall: "not provided by this libcrypto")
        }
        return digest
    }

    /// Gets a keyed method from libcrypto's providers; the caller frees it.
    ///
    /// The corresponding C function is `EVP_MAC_fetch`.
    func fetchMAC() throws(DigestError) -> OpaquePointer {
        guard let mac = EVP_MAC_fetch(nil, name.uppercased(), nil) else {
            throw DigestError(name, "digest", failedCall: "not provided by this libcrypto")
        }
        return mac
    }
}

extension DigestMethod {
    /// Methods that are faster here than `poly1305`, the fastest first.
    ///
    /// A pair of machines is as fast as the slower one: both should have a method here.
    package static let fasterOnes = GhashKey.isAvailable ? [gmac] : []
}
