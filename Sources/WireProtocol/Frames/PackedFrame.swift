// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import LinuxIO
package import Zstandard

/// A payload in a session that compresses: a sealed payload, as it is or as one zstd frame.
///
///     0   the payload with its seal, or a zstd frame of it
///     z   u32  bytes of the payload with its seal
///     +4  u32  coding: 0 as it is, 1 zstd
///
/// The seal is the digest of the bytes before compression. So it cannot be checked first: whatever
/// is wrong here counts as corruption on the way.
package struct PackedFrame {
    package enum Coding: UInt32, Hashable, Sendable {
        case plain = 0
        case zstd = 1
    }

    package static let footerSize = 8

    package let coding: Coding
    /// The sealed payload, or the zstd frame.
    package let content: UnsafeRawBufferPointer
    /// Bytes of the sealed payload, at most `Limits.body`; for zstd, the frame has this size, too.
    package let count: Int

    /// Writes the 8 bytes behind the content.
    ///
    /// - Parameter count: bytes of the sealed payload.
    package static func writeFooter(
        count: Int, _ coding: Coding, to memory: UnsafeMutableRawBufferPointer
    ) {
        var writer = FrameWriter(memory)
        writer.put(UInt32(truncatingIfNeeded: count))
        writer.put(coding.rawValue)
    }

    /// Parses the body of a request or an answer, and takes no memory for its content.
    ///
    /// - Throws: an error of kind `corrupted`, also without libzstd.
    package init(_ bytes: UnsafeRawBufferPointer) throws(IOError) {
        guard bytes.count >= Self.footerSize else {
            throw Self.corrupted("a packed payload of \(bytes.count) bytes")
        }
        content = slice(bytes, 0, bytes.count - Self.footerSize)
        var footer = FrameReader(slice(bytes, content.count, bytes.count))
        let number: Int
        do throws(WireError) {
            count = try footer.u32()
            number = try footer.u32()
        } catch {
            throw Self.corrupted(error.reason)
        }
        guard let coding = UInt32(exactly: number).flatMap({ Coding(rawValue: $0) }) else {
            throw Self.corrupted("coding \(number) is unknown")
        }
        self.coding = coding
        guard count <= Limits.body else {
            throw Self.corrupted("it would have \(count) bytes, more than \(Limits.body)")
        }
        let found = coding == .plain ? content.count : Zstd.contentSize(of: content)
        guard found == count else {
            throw Self.corrupted(
                "it announces \(count) bytes, and has "
                    + (found.map { "\($0)" } ?? "no zstd frame of a known size"))
        }
    }

    /// Decompresses a zstd frame, and returns the sealed payload.
    ///
    /// - Parameters:
    ///   - memory: at least `count` bytes.
    ///   - context: of this thread.
    package func unpacked(
        into memory: UnsafeMutableRawBufferPointer, _ context: ZstdContext
    ) throws(IOError) -> UnsafeRawBufferPointer {
        let room = slice(memory, 0, count)
        guard context.decompress(content, into: room) else {
            throw Self.corrupted("its zstd frame cannot be decompressed")
        }
        return UnsafeRawBufferPointer(room)
    }

    private static func corrupted(_ reason: String) -> IOError {
        var error = IOError("frame", "unpack", reason: reason)
        error.kind = .corrupted
        return error
    }
}
