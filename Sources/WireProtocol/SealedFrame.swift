// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import Digests

/// Every frame ends with a digest over all that comes before it, by the session's method and key,
/// so that neither data nor what is said about it is taken for something else than was sent.
package enum SealedFrame {
    /// Why a frame is not to be believed.
    package enum Failure: Error, Hashable, Sendable {
        /// The digest is not that of the bytes.
        case corrupted
        /// libcrypto failed.
        case failed(String)
    }

    /// Checks a frame.
    ///
    /// - Parameters:
    ///   - bytes: the whole body.
    ///   - hasher: of the session's method and key.
    /// - Returns: what is before the digest.
    /// - Throws: when the digest is not that of the bytes.
    package static func open(
        _ bytes: UnsafeRawBufferPointer, _ hasher: inout BlockHasher
    ) throws(Failure) -> UnsafeRawBufferPointer {
        let size = hasher.method.byteCount
        guard bytes.count >= size else { throw .corrupted }
        let content = UnsafeRawBufferPointer(rebasing: bytes[..<(bytes.count - size)])
        // The longest digest there is has 64 bytes.
        let isRight = try withDigest(of: content, &hasher) { digest in
            digest.elementsEqual(bytes[content.count...])
        }
        guard isRight else { throw .corrupted }
        return content
    }

    /// Puts the digest behind a frame's content.
    ///
    /// - Parameters:
    ///   - memory: with room for the digest behind the content.
    ///   - count: bytes of the content.
    ///   - hasher: of the session's method and key.
    /// - Returns: bytes of the whole frame.
    /// - Throws: when libcrypto fails.
    package static func seal(
        _ memory: UnsafeMutableRawBufferPointer, count: Int, _ hasher: inout BlockHasher
    ) throws(Failure) -> Int {
        let size = hasher.method.byteCount
        let digest = UnsafeMutableRawBufferPointer(rebasing: memory[count..<count + size])
        do throws(DigestError) {
            try hasher.digest(of: UnsafeRawBufferPointer(rebasing: memory[..<count]), into: digest)
        } catch {
            throw .failed(error.reason)
        }
        return count + size
    }

    private static func withDigest(
        of content: UnsafeRawBufferPointer, _ hasher: inout BlockHasher,
        _ body: (UnsafeRawBufferPointer) -> Bool
    ) throws(Failure) -> Bool {
        let digest = UnsafeMutableRawBufferPointer.allocate(
            byteCount: hasher.method.byteCount, alignment: 8)
        defer { digest.deallocate() }
        do throws(DigestError) { try hasher.digest(of: content, into: digest) } catch {
            throw .failed(error.reason)
        }
        return body(UnsafeRawBufferPointer(digest))
    }
}
