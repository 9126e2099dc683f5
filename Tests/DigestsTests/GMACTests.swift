// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import COpenSSL
internal import Digests
internal import TestSupport
internal import Testing

/// GMAC is that of the standard, whichever implementation computes it.
struct GMACTests {
    @Test func `GMAC of an empty message is the published tag`() throws {
        // D. McGrew, J. Viega, "The Galois/Counter Mode of Operation", appendix B, test case 13:
        // AES-256, key and IV of zeros, no data.
        let key = try DigestKey([UInt8](repeating: 0, count: DigestKey.byteCount))
        #expect(
            try oneShot(.gmac, key, []) == [
                0x53, 0x0f, 0x8a, 0xfb, 0xc7, 0x45, 0x36, 0xb9, 0xa9, 0x63, 0xb4, 0xf1, 0xc4,
                0xcb, 0x73, 0x8b,
            ])
    }

    @Test(arguments: DigestMethod.gmacWidths)
    func `GMAC equals libcrypto's for every length, start, cut and width`(width: Int) throws {
        let seed = UInt64.random(in: .min ... .max)
        var random = SeededGenerator(seed: seed)
        let bytes = random.bytes(70_000)
        for round in 0..<4 {
            let key = random.bytes(DigestKey.byteCount)
            // Width 0 uses one context of libcrypto for all messages.
            var hasher = try BlockHasher(.gmac, key: DigestKey(key), gmacWidth: width)
            // Around a block of 16, four of them, and the 32 that are taken at once.
            let lengths =
                Array(0...1100)
                + (0..<50).map { _ in
                    Int.random(in: 0...69_000, using: &random)
                }
            for length in round == 0 ? lengths : lengths.suffix(50) {
                let start = Int.random(in: 0...64, using: &random)
                let message = Array(bytes[start..<start + length])
                let cuts = (0..<3).map { _ in Int.random(in: 0...length, using: &random) }.sorted()
                let digest = try hasher.digest(of: message, cutAt: cuts)
                #expect(
                    try digest == libcryptoGMAC(message, key: key),
                    "seed \(seed), length \(length), start \(start), cuts \(cuts)")
            }
        }
    }

    @Test func `hashers of one key agree from several threads at once`() async throws {
        let key = try DigestKey()
        let message = [UInt8](repeating: 7, count: 5000)
        let digests = try await withThrowingTaskGroup(of: [UInt8].self) { group in
            for _ in 0..<16 { group.addTask { try oneShot(.gmac, key, message) } }
            return try await group.reduce(into: Set<[UInt8]>()) { $0.insert($1) }
        }
        #expect(digests.count == 1)
    }

    @Test func `GMAC is preferred to Poly1305 only where the processor is faster at it`() throws {
        let info = try String(contentsOfFile: "/proc/cpuinfo")
        let flags = Set(info.split(whereSeparator: \.isWhitespace))
        let isWide = flags.isSuperset(of: ["pclmulqdq", "ssse3", "avx2", "vpclmulqdq"])
        // Poly1305 of libcrypto is fast with AVX-512 IFMA.
        let isNarrow =
            flags.isSuperset(of: ["pclmulqdq", "ssse3"]) && !flags.contains("avx512ifma")
        let isArm = flags.contains("pmull")
        #expect(DigestMethod.fasterOnes == (isWide || isNarrow || isArm ? [.gmac] : []))
    }
}

extension BlockHasher {
    fileprivate mutating func digest(of message: [UInt8], cutAt cuts: [Int]) throws -> [UInt8] {
        var digest = [UInt8](repeating: 0, count: method.byteCount)
        try message.withUnsafeBytes { message in
            let parts = zip([0] + cuts, cuts + [message.count]).map {
                UnsafeRawBufferPointer(rebasing: message[$0..<$1])
            }
            try digest.withUnsafeMutableBytes { try self.digest(of: parts, into: $0) }
        }
        return digest
    }
}

private func libcryptoGMAC(_ message: [UInt8], key: [UInt8]) throws -> [UInt8] {
    let mac = try #require(EVP_MAC_fetch(nil, "GMAC", nil))
    defer { EVP_MAC_free(mac) }
    let context = try #require(EVP_MAC_CTX_new(mac))
    defer { EVP_MAC_CTX_free(context) }
    var digest = [UInt8](repeating: 0, count: 16)
    var length = 0
    #expect(co_gmac_init(context, key) == 1)
    #expect(EVP_MAC_update(context, message, message.count) == 1)
    #expect(EVP_MAC_final(context, &digest, &length, digest.count) == 1)
    return digest
}

extension String {
    fileprivate init(contentsOfFile path: String) throws {
        self = String(decoding: try [UInt8](contentsOf: path), as: UTF8.self)
    }
}
