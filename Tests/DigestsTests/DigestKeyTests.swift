// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Digests
internal import LinuxIO
internal import TestSupport
internal import Testing

/// A run's digests are keyed.
struct DigestKeyTests {
    @Test func `a key is made from the bytes of another key`() throws {
        let key = try DigestKey()
        let bytes = key.withUnsafeBytes { Array($0) }
        #expect(bytes.count == DigestKey.byteCount)
        let copy = try DigestKey(bytes)
        #expect(copy.withUnsafeBytes { Array($0) } == bytes)
        #expect(try oneShot(.poly1305, key, [1, 2, 3]) == oneShot(.poly1305, copy, [1, 2, 3]))
    }

    @Test(arguments: [0, 16, 31, 33, 64])
    func `a key of another size is refused`(count: Int) throws {
        let error = try #require(throws: IOError.self) {
            try DigestKey([UInt8](repeating: 1, count: count))
        }
        #expect(error.description == "digest key: take: it has \(count) bytes, not 32")
    }

    @Test func `random keys differ each time, and give the same block different digests`() throws {
        let block = [UInt8](repeating: 7, count: 4096)
        var keys: Set<[UInt8]> = []
        var digests: Set<[UInt8]> = []
        for _ in 0..<100 {
            let key = try DigestKey()
            keys.insert(key.withUnsafeBytes { Array($0) })
            digests.insert(try oneShot(.poly1305, key, block))
        }
        #expect(keys.count == 100)
        #expect(digests.count == 100)
    }

    @Test func `a keyed method without a key is refused`() throws {
        let error = try #require(throws: IOError.self) {
            _ = try BlockHasher(.poly1305, key: nil)
        }
        #expect(error.description == "poly1305: digest: it needs a key")
    }

    @Test func `message digests are the same under any key, and without one`() throws {
        let method = try DigestMethod(named: "sha256")
        #expect(try oneShot(method, DigestKey(), [1]) == oneShot(method, nil, [1]))
    }
}
