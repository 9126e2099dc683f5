// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import Digests
package import LinuxIO

/// Ends each frame with a digest over its data and table, with the session's method and key.
package enum SealedFrame {
    /// Checks the digest of a frame, and returns the bytes before it.
    ///
    /// - Parameter hasher: has the session's method and key.
    /// - Throws: an error of kind `corrupted` if the digest is not that of the bytes.
    package static func open(
        _ bytes: UnsafeRawBufferPointer, _ hasher: inout BlockHasher
    ) throws(IOError) -> UnsafeRawBufferPointer {
        let size = hasher.method.byteCount
        guard bytes.count >= size else { throw corrupted }
        let content = UnsafeRawBufferPointer(rebasing: bytes[..<(bytes.count - size)])
        let isRight = try withDigest(of: content, &hasher) { digest in
            digest.elementsEqual(bytes[content.count...])
        }
        guard isRight else { throw corrupted }
        return content
    }

    /// Appends the digest to a frame, and returns the length of the whole frame.
    ///
    /// - Parameters:
    ///   - memory: has room for the digest behind `count` bytes of content.
    ///   - hasher: has the session's method and key.
    package static func seal(
        _ memory: UnsafeMutableRawBufferPointer, count: Int, _ hasher: inout BlockHasher
    ) throws(IOError) -> Int {
        let size = hasher.method.byteCount
        let digest = UnsafeMutableRawBufferPointer(rebasing: memory[count..<count + size])
        try hasher.digest(of: UnsafeRawBufferPointer(rebasing: memory[..<count]), into: digest)
        return count + size
    }

    private static var corrupted: IOError {
        var error = IOError("frame", "check", reason: "its digest is not that of its bytes")
        error.kind = .corrupted
        return error
    }

    private static func withDigest(
        of content: UnsafeRawBufferPointer, _ hasher: inout BlockHasher,
        _ body: (UnsafeRawBufferPointer) -> Bool
    ) throws(IOError) -> Bool {
        let digest = UnsafeMutableRawBufferPointer.allocate(
            byteCount: hasher.method.byteCount, alignment: 8)
        defer { digest.deallocate() }
        try hasher.digest(of: content, into: digest)
        return body(UnsafeRawBufferPointer(digest))
    }
}
