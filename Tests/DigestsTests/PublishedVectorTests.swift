// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Digests
internal import Testing

/// Digests are those that their standards publish.
struct PublishedVectorTests {
    @Test(arguments: DigestVector.rfc8439)
    func `Poly1305 gives the tags of RFC 8439`(vector: DigestVector) throws {
        #expect(try digest(vector) == vector.digest)
    }

    @Test(
        arguments: [
            DigestVector.rfc1321, DigestVector.rfc7693, DigestVector.sm3Standard,
            DigestVector.fipsExamples,
        ].joined().map { $0 })
    func `message digests give the examples of their standards`(vector: DigestVector) throws {
        #expect(try digest(vector) == vector.digest)
    }

    @Test(arguments: DigestVector.fips180ShortMessages + DigestVector.fips202ShortMessages)
    func `SHA digests give NIST's short message vectors`(vector: DigestVector) throws {
        #expect(try digest(vector) == vector.digest)
    }

    @Test func `one hasher gives all tags of RFC 8439 that share a key`() throws {
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
