// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import COpenSSL

/// Computes digests of regions and blocks, one worker's own.
///
/// All memory it needs is taken when it is made: nothing is allocated for a block, but that
/// libcrypto 3.0 does so each time a message digest starts. It may move between threads, but one at
/// a time uses it.
package struct BlockHasher: ~Copyable, @unchecked Sendable {
    package let method: DigestMethod
    private let engine: Engine

    /// What libcrypto works with; the contexts and the algorithm are owned.
    private enum Engine {
        case ghash(GhashKey)
        case mac(context: OpaquePointer, key: DigestKey)
        case digest(context: OpaquePointer, algorithm: OpaquePointer)
    }

    /// Makes a hasher, in well under a microsecond: one for each request is affordable.
    ///
    /// - Parameters:
    ///   - method: which digest.
    ///   - key: for a keyed method; the others have no use for it.
    ///   - usesLibcrypto: whatever this processor has instructions for, for tests.
    /// - Throws: when a keyed method gets no key, or libcrypto refuses.
    package init(
        _ method: DigestMethod, key: DigestKey?, usesLibcrypto: Bool = false
    ) throws(DigestError) {
        self.method = method
        engine =
            try method.isKeyed ? Self.keyed(method, key, usesLibcrypto) : Self.unkeyed(method)
    }

    deinit {
        switch engine {
        case .ghash:
            break
        case .mac(let context, _):
            EVP_MAC_CTX_free(context)
        case .digest(let context, let algorithm):
            EVP_MD_CTX_free(context)
            EVP_MD_free(algorithm)
        }
    }

    /// Computes the digest of a buffer.
    ///
    /// - Parameters:
    ///   - bytes: any number of bytes, also none.
    ///   - digest: gets `method.byteCount` bytes at its start.
    /// - Throws: when libcrypto fails, for which no reason is known.
    package mutating func digest(
        of bytes: UnsafeRawBufferPointer, into digest: UnsafeMutableRawBufferPointer
    ) throws(DigestError) {
        try self.digest(of: CollectionOfOne(bytes), into: digest)
    }

    /// Computes one digest of several pieces, as if they were one buffer.
    ///
    /// - Parameters:
    ///   - parts: in their order.
    ///   - digest: gets `method.byteCount` bytes at its start.
    /// - Throws: when libcrypto fails, for which no reason is known.
    package mutating func digest(
        of parts: some Collection<UnsafeRawBufferPointer>,
        into digest: UnsafeMutableRawBufferPointer
    ) throws(DigestError) {
        precondition(digest.count >= method.byteCount)
        let done =
            switch engine {
            case .ghash(let key):
                ghash(key, parts, digest)
            case .mac(let context, let key):
                mac(context, method, key, parts, digest)
            case .digest(let context, let algorithm):
                messageDigest(context, algorithm, parts, digest)
            }
        guard done else {
            let count = parts.reduce(0) { $0 + $1.count }
            throw DigestError(
                method.name, "digest of \(count) bytes", failedCall: "failed in libcrypto")
        }
    }

    /// Begins the digest of bytes that come piece by piece; for a method without a key.
    ///
    /// - Throws: when libcrypto fails, for which no reason is known.
    package mutating func begin() throws(DigestError) {
        try piecewise { EVP_DigestInit_ex2($0, $1, nil) }
    }

    /// Adds a piece.
    package mutating func add(_ bytes: UnsafeRawBufferPointer) throws(DigestError) {
        try piecewise { context, _ in EVP_DigestUpdate(context, bytes.baseAddress, bytes.count) }
    }

    /// Ends the digest that was begun.
    ///
    /// - Parameter digest: gets `method.byteCount` bytes at its start.
    /// - Throws: when libcrypto fails, for which no reason is known.
    package mutating func finish(into digest: UnsafeMutableRawBufferPointer) throws(DigestError) {
        precondition(digest.count >= method.byteCount)
        try piecewise { context, _ in EVP_DigestFinal_ex(context, digest.baseAddress, nil) }
    }

    private func piecewise(
        _ call: (_ context: OpaquePointer, _ algorithm: OpaquePointer) -> Int32
    ) throws(DigestError) {
        guard case .digest(let context, let algorithm) = engine else {
            preconditionFailure("\(method.name) takes all at once")
        }
        guard call(context, algorithm) == 1 else {
            throw DigestError(method.name, "digest", failedCall: "failed in libcrypto")
        }
    }

    /// Computes one digest for each region of a window.
    ///
    /// - Parameters:
    ///   - window: the window's bytes; the last region may be partial.
    ///   - regionSize: in bytes.
    ///   - digests: gets them one after the other, `byteCount(ofDigestsOver:every:)` bytes.
    /// - Throws: when libcrypto fails.
    package mutating func regionDigests(
        of window: UnsafeRawBufferPointer, regionSize: Int,
        into digests: UnsafeMutableRawBufferPointer
    ) throws(DigestError) {
        precondition(
            digests.count >= method.byteCount(ofDigestsOver: window.count, every: regionSize))
        for index in 0..<unitCount(window.count, every: regionSize) {
            try digest(
                of: unit(index, of: window, every: regionSize), into: slot(index, in: digests))
        }
    }

    /// Finds the zero blocks of a buffer and computes one digest for each of the others.
    ///
    /// A zero block's digest is all zeros and is not computed. A digest proper is all zeros as
    /// rarely as it equals any other given one, so that two lists of digests can be compared
    /// without regard to the marks.
    ///
    /// - Parameters:
    ///   - buffer: the blocks; the last one may be partial.
    ///   - blockSize: in bytes.
    ///   - digests: gets them one after the other, `byteCount(ofDigestsOver:every:)` bytes.
    ///   - zeroBlocks: gets one mark a block: whether all of its bytes are zero.
    /// - Throws: when libcrypto fails.
    package mutating func blockDigests(
        of buffer: UnsafeRawBufferPointer, blockSize: Int,
        into digests: UnsafeMutableRawBufferPointer,
        zeroBlocks: UnsafeMutableBufferPointer<Bool>
    ) throws(DigestError) {
        let count = unitCount(buffer.count, every: blockSize)
        precondition(digests.count >= count * method.byteCount && zeroBlocks.count >= count)
        for index in 0..<count {
            let block = unit(index, of: buffer, every: blockSize)
            let digest = slot(index, in: digests)
            zeroBlocks[index] = isZero(block)
            if zeroBlocks[index] {
                digest.initializeMemory(as: UInt8.self, repeating: 0)
            } else {
                try self.digest(of: block, into: digest)
            }
        }
    }

    private func slot(
        _ index: Int, in digests: UnsafeMutableRawBufferPointer
    ) -> UnsafeMutableRawBufferPointer {
        let start = index * method.byteCount
        return UnsafeMutableRawBufferPointer(rebasing: digests[start..<start + method.byteCount])
    }
}

extension BlockHasher {
    private static func keyed(
        _ method: DigestMethod, _ key: DigestKey?, _ usesLibcrypto: Bool
    ) throws(DigestError) -> Engine {
        guard let key else { throw DigestError(method.name, "digest", reason: "it needs a key") }
        if method == .gmac && GhashKey.isAvailable && !usesLibcrypto {
            return .ghash(try key.ghash())
        }
        let mac = try method.fetchMAC()
        defer { EVP_MAC_free(mac) }
        guard let context = EVP_MAC_CTX_new(mac) else {
            throw DigestError(method.name, "make a context", failedCall: "failed in libcrypto")
        }
        return .mac(context: context, key: key)
    }

    private static func unkeyed(_ method: DigestMethod) throws(DigestError) -> Engine {
        let algorithm = try DigestMethod.fetchDigest(method.name, writtenAs: method.name)
        guard let context = EVP_MD_CTX_new() else {
            EVP_MD_free(algorithm)
            throw DigestError(method.name, "make a context", failedCall: "failed in libcrypto")
        }
        return .digest(context: context, algorithm: algorithm)
    }
}

private func unit(
    _ index: Int, of buffer: UnsafeRawBufferPointer, every size: Int
) -> UnsafeRawBufferPointer {
    let start = index * size
    return UnsafeRawBufferPointer(rebasing: buffer[start..<min(start + size, buffer.count)])
}

private func ghash(
    _ key: GhashKey, _ parts: some Collection<UnsafeRawBufferPointer>,
    _ digest: UnsafeMutableRawBufferPointer
) -> Bool {
    key.digest(of: parts, into: digest)
    return true
}

/// The corresponding C functions are `EVP_MAC_init`, `EVP_MAC_update` and `EVP_MAC_final`.
private func mac(
    _ context: OpaquePointer, _ method: DigestMethod, _ key: DigestKey,
    _ parts: some Collection<UnsafeRawBufferPointer>, _ digest: UnsafeMutableRawBufferPointer
) -> Bool {
    key.withUnsafeBytes { key in
        // The key is given each time: without one, libcrypto does not start these again
        // (openssl/openssl#18100), and a context that goes on after that refusal crashes.
        var length = 0
        let isReady =
            method == .gmac
            ? co_gmac_init(context, key.baseAddress?.assumingMemoryBound(to: UInt8.self))
            : EVP_MAC_init(context, key.baseAddress, key.count, nil)
        return isReady == 1
            && parts.allSatisfy { EVP_MAC_update(context, $0.baseAddress, $0.count) == 1 }
            && EVP_MAC_final(context, digest.baseAddress, &length, digest.count) == 1
            && length == method.byteCount
    }
}

/// The corresponding C functions are `EVP_DigestInit_ex2`, `EVP_DigestUpdate` and
/// `EVP_DigestFinal_ex`.
private func messageDigest(
    _ context: OpaquePointer, _ algorithm: OpaquePointer,
    _ parts: some Collection<UnsafeRawBufferPointer>, _ digest: UnsafeMutableRawBufferPointer
) -> Bool {
    // With an algorithm that was fetched before: otherwise each start looks it up by name.
    EVP_DigestInit_ex2(context, algorithm, nil) == 1
        && parts.allSatisfy { EVP_DigestUpdate(context, $0.baseAddress, $0.count) == 1 }
        && EVP_DigestFinal_ex(context, digest.baseAddress, nil) == 1
}
