// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import COpenSSL
internal import Digests
internal import LinuxIO
internal import Testing

/// A digest is chosen by name.
struct DigestMethodTests {
    @Test func `every listed method works and is found by its own name`() throws {
        let methods = DigestMethod.available()
        #expect(methods.map(\.name) == Set(methods.map(\.name)).sorted())
        #expect(methods.contains(.poly1305) && methods.contains(.gmac))
        let key = try DigestKey()
        for method in methods {
            #expect(try DigestMethod(named: method.name) == method)
            let digest = try oneShot(method, key, [1, 2, 3])
            #expect(digest.count == method.byteCount && digest.contains { $0 != 0 })
            #expect(try digest != oneShot(method, key, [1, 2, 4]))
        }
    }

    @Test(arguments: [
        ("gmac", "gmac", 16), ("GMAC", "gmac", 16), ("Poly1305", "poly1305", 16),
        ("POLY1305", "poly1305", 16), ("MD5", "md5", 16),
        ("sha1", "sha1", 20), ("SHA-1", "sha1", 20), ("1.3.14.3.2.26", "sha1", 20),
        ("sha256", "sha256", 32), ("SHA2-256", "sha256", 32), ("sha512", "sha512", 64),
        ("sha512-256", "sha512-256", 32), ("sha512_256", "sha512-256", 32),
        ("sha512_224", "sha512-224", 28),
        ("sha3-256", "sha3-256", 32), ("sha3_256", "sha3-256", 32),
        ("SHA3_512", "sha3-512", 64), ("blake2b", "blake2b512", 64),
        ("blake2b512", "blake2b512", 64), ("BLAKE2B-512", "blake2b512", 64),
        ("Blake2s", "blake2s256", 32), ("blake2s256", "blake2s256", 32), ("sm3", "sm3", 32),
        ("ripemd160", "ripemd160", 20), ("md5-sha1", "md5-sha1", 36),
        ("md5_sha1", "md5-sha1", 36),
    ])
    func `libcrypto and hashlib names of digests are read in any case`(
        written: String, name: String, byteCount: Int
    ) throws {
        let method = try DigestMethod(named: written)
        #expect(method.name == name)
        #expect(method.byteCount == byteCount)
        #expect(method.isKeyed == ["gmac", "poly1305"].contains(name))
    }

    @Test(arguments: [
        ("sha0", "sha0: digest: not provided by this libcrypto (unsupported)"),
        // HMAC is a MAC, AES a cipher: known to libcrypto, but no digests.
        ("hmac", "hmac: digest: not provided by this libcrypto (unsupported)"),
        ("aes-128-cbc", "aes-128-cbc: digest: not provided by this libcrypto (unsupported)"),
        ("shake128", "shake128: digest: its output has no fixed size"),
        ("shake_256", "shake_256: digest: its output has no fixed size"),
        ("KECCAK-KMAC-128", "KECCAK-KMAC-128: digest: its output has no fixed size"),
        ("null", "null: digest: its output is empty"),
    ])
    func `an unavailable digest is refused with a reason and the list of available digests`(
        written: String, message: String
    ) throws {
        let error = try #require(throws: IOError.self) { try DigestMethod(named: written) }
        #expect(error.description == message)
        let names = DigestMethod.available().map(\.name).joined(separator: ", ")
        #expect(error.advice == "this libcrypto provides \(names)")
        #expect(names.hasPrefix("blake2b512, "))
    }

    /// Not arguments of the test: the runner would print them as they are.
    @Test func `a malformed digest name is refused and quoted`() throws {
        for (written, object) in [
            ("", #""""#), ("sha1\0", #""sha1\0""#), ("sha1\0x", #""sha1\0x""#),
            ("sha1\n", #""sha1\n""#), ("sha1:sha256", #""sha1:sha256""#), ("sha 1", #""sha 1""#),
            // The Kelvin sign, which becomes a k in lower case.
            ("\u{212A}1", "\"\u{212A}1\""),
        ] {
            let error = try #require(throws: IOError.self) { try DigestMethod(named: written) }
            #expect(error.description == "\(object): digest: not a digest's name")
        }
    }

    @Test func `a long digest name is cut in the message`() throws {
        let error = try #require(throws: IOError.self) {
            try DigestMethod(named: String(repeating: "a", count: 1 << 20))
        }
        #expect(error.object == "\"" + String(repeating: "a", count: 64) + "\"")
    }

    @Test(arguments: ["md4", "whirlpool", "mdc2"])
    func `a digest of the legacy provider works only where that provider is loaded`(name: String)
        throws
    {
        guard let method = try? DigestMethod(named: name) else {
            let error = try #require(throws: IOError.self) { try DigestMethod(named: name) }
            #expect(error.reason == "not provided by this libcrypto (unsupported)")
            return
        }
        #expect(try oneShot(method, nil, [1]).count == method.byteCount)
    }

    @Test func `a failure leaves nothing in libcrypto's error queue`() {
        ERR_clear_error()
        #expect(throws: IOError.self) { try DigestMethod(named: "sha0") }
        #expect(ERR_peek_error() == 0)
    }
}
