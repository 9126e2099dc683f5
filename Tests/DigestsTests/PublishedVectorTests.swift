// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Digests
internal import Testing

@Suite("Digests are those that their standards publish")
struct PublishedVectorTests {
    @Test("Poly1305 gives the tags of RFC 8439", arguments: DigestVector.rfc8439)
    func poly1305(vector: DigestVector) throws {
        #expect(try digest(vector) == vector.digest)
    }

    @Test(
        "message digests give the examples of their standards",
        arguments: [
            DigestVector.rfc1321, DigestVector.rfc7693, DigestVector.sm3Standard,
            DigestVector.fipsExamples,
        ].joined().map { $0 })
    func examples(vector: DigestVector) throws {
        #expect(try digest(vector) == vector.digest)
    }

    @Test(
        "SHA digests give NIST's short message vectors",
        arguments: DigestVector.fips180ShortMessages + DigestVector.fips202ShortMessages)
    func shortMessages(vector: DigestVector) throws {
        #expect(try digest(vector) == vector.digest)
    }

    @Test("one hasher gives all tags of RFC 8439 that share a key")
    func sameKey() throws {
        for vector in DigestVector.rfc8439 {
            var hasher = try BlockHasher(.poly1305, key: DigestKey(vector.key ?? []))
            for other in DigestVector.rfc8439 where other.key == vector.key {
                #expect(try hasher.digest(of: other.message) == other.digest)
            }
        }
    }

    private func digest(_ vector: DigestVector) throws -> [UInt8] {
        let key = try vector.key.map { try DigestKey($0) }
        return try oneShot(DigestMethod(named: vector.method), key, vector.message)
    }
}
