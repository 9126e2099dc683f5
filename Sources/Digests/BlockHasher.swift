// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import COpenSSL
package import LinuxIO

/// Computes digests for one worker.
///
/// It is safe to send, because it cannot be copied and each use of libcrypto's contexts is
/// `mutating`: one thread at a time has it.
///
/// It allocates memory only when it is created, except that libcrypto 3.0 also does at each start
/// of a message digest.
package struct BlockHasher: ~Copyable, @unchecked Sendable {
    package let method: DigestMethod
    private let engine: Engine

    private enum Engine {
        case ghash(GhashKey)
        case mac(context: OpaquePointer, key: DigestKey)
        case digest(context: OpaquePointer, algorithm: OpaquePointer)
    }

    /// Creates a hasher in well under a microsecond, so that each request can have its own.
    ///
    /// - Parameter gmacWidth: of `DigestMethod.gmacWidths`, for tests.
    /// - Throws: also if a keyed method gets no key.
    package init(
        _ method: DigestMethod, key: DigestKey?, gmacWidth: Int? = nil
    ) throws(IOError) {
        self.method = method
        engine =
            try method.isKeyed ? Self.keyed(method, key, gmacWidth) : Self.unkeyed(method)
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

    /// - Parameter digest: gets `method.byteCount` bytes at its start.
    package mutating func digest(
        of bytes: UnsafeRawBufferPointer, into digest: UnsafeMutableRawBufferPointer
    ) throws(IOError) {
        try self.digest(of: CollectionOfOne(bytes), into: digest)
    }

    /// Computes one digest of several parts, as if they were one buffer.
    package mutating func digest(
        of parts: some Collection<UnsafeRawBufferPointer>,
        into digest: UnsafeMutableRawBufferPointer
    ) throws(IOError) {
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
            throw .digest(
                method.name, "digest of \(count) bytes", failedCall: "failed in libcrypto")
        }
    }

    /// Starts a digest in parts, for a method without a key.
    package mutating func begin() throws(IOError) {
        try piecewise { EVP_DigestInit_ex2($0, $1, nil) }
    }

    package mutating func add(_ bytes: UnsafeRawBufferPointer) throws(IOError) {
        try piecewise { context, _ in EVP_DigestUpdate(context, bytes.baseAddress, bytes.count) }
    }

    package mutating func finish(into digest: UnsafeMutableRawBufferPointer) throws(IOError) {
        precondition(digest.count >= method.byteCount)
        try piecewise { context, _ in EVP_DigestFinal_ex(context, digest.baseAddress, nil) }
    }

    /// Another hasher that has begun the same digest, for a method without a key.
    ///
    /// The corresponding C function is `EVP_MD_CTX_copy_ex`.
    package func copy() throws(IOError) -> BlockHasher {
        let other = try BlockHasher(method, key: nil)
        guard case .digest(let context, _) = engine, case .digest(let copied, _) = other.engine
        else { preconditionFailure("\(method.name) takes all at once") }
        guard EVP_MD_CTX_copy_ex(copied, context) == 1 else {
            throw .digest(method.name, "digest", failedCall: "failed in libcrypto")
        }
        return other
    }

    private func piecewise(
        _ call: (_ context: OpaquePointer, _ algorithm: OpaquePointer) -> Int32
    ) throws(IOError) {
        guard case .digest(let context, let algorithm) = engine else {
            preconditionFailure("\(method.name) takes all at once")
        }
        guard call(context, algorithm) == 1 else {
            throw .digest(method.name, "digest", failedCall: "failed in libcrypto")
        }
    }

    /// Computes one digest for each region, without gaps; the last region may be partial.
    ///
    /// - Parameter digests: gets `byteCount(ofDigestsOver:every:)` bytes.
    package mutating func regionDigests(
        of window: UnsafeRawBufferPointer, regionSize: Int,
        into digests: UnsafeMutableRawBufferPointer
    ) throws(IOError) {
        precondition(
            digests.count >= method.byteCount(ofDigestsOver: window.count, every: regionSize))
        for index in 0..<unitCount(window.count, every: regionSize) {
            try digest(
                of: unit(index, of: window, every: regionSize), into: slot(index, in: digests))
        }
    }

    /// Computes the digest of `count` bytes that are 0.
    package mutating func digest(ofZeros count: Int) throws(IOError) -> [UInt8] {
        let memory = UnsafeMutableRawBufferPointer.allocate(
            byteCount: count + method.byteCount, alignment: 8)
        defer { memory.deallocate() }
        memory.initializeMemory(as: UInt8.self, repeating: 0)
        let digest = UnsafeMutableRawBufferPointer(rebasing: memory[count...])
        try self.digest(of: UnsafeRawBufferPointer(rebasing: memory[..<count]), into: digest)
        return Array(digest)
    }

    /// Computes what `regionDigests` computes of a window of zeros.
    ///
    /// - Parameters:
    ///   - count: bytes of the window.
    ///   - whole: the digest of a whole region of zeros.
    package mutating func regionDigests(
        ofZeros count: Int, regionSize: Int, whole: [UInt8],
        into digests: UnsafeMutableRawBufferPointer
    ) throws(IOError) {
        for index in 0..<unitCount(count, every: regionSize) {
            let rest = count - index * regionSize
            let digest = try rest < regionSize ? self.digest(ofZeros: rest) : whole
            slot(index, in: digests).copyBytes(from: digest)
        }
    }

    /// Computes one digest for each block, without gaps; the last block may be partial.
    ///
    /// The digest of a zero block is all zeros. A computed digest is all zeros only with the
    /// probability of a collision, so lists of digests can be compared without the flags.
    ///
    /// - Parameters:
    ///   - digests: gets `byteCount(ofDigestsOver:every:)` bytes.
    ///   - zeroBlocks: gets one flag for each block: whether all its bytes are zero.
    package mutating func blockDigests(
        of buffer: UnsafeRawBufferPointer, blockSize: Int,
        into digests: UnsafeMutableRawBufferPointer,
        zeroBlocks: UnsafeMutableBufferPointer<Bool>
    ) throws(IOError) {
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
        _ method: DigestMethod, _ key: DigestKey?, _ gmacWidth: Int?
    ) throws(IOError) -> Engine {
        guard let key else { throw .digest(method.name, "digest", reason: "it needs a key") }
        let width = gmacWidth ?? GhashKey.widest
        if method == .gmac && width > 0 { return .ghash(try key.ghash(width: width)) }
        let mac = try method.fetchMAC()
        defer { EVP_MAC_free(mac) }
        guard let context = EVP_MAC_CTX_new(mac) else {
            throw .digest(method.name, "make a context", failedCall: "failed in libcrypto")
        }
        return .mac(context: context, key: key)
    }

    private static func unkeyed(_ method: DigestMethod) throws(IOError) -> Engine {
        let algorithm = try DigestMethod.fetchDigest(method.name, writtenAs: method.name)
        guard let context = EVP_MD_CTX_new() else {
            EVP_MD_free(algorithm)
            throw .digest(method.name, "make a context", failedCall: "failed in libcrypto")
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
        // Without the key, libcrypto does not restart these methods (openssl/openssl#18100), and a
        // context that is used after this refusal crashes.
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
    // This avoids a lookup by name at each start.
    EVP_DigestInit_ex2(context, algorithm, nil) == 1
        && parts.allSatisfy { EVP_DigestUpdate(context, $0.baseAddress, $0.count) == 1 }
        && EVP_DigestFinal_ex(context, digest.baseAddress, nil) == 1
}
