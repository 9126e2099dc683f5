// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import Digests
internal import LinuxIO
internal import NIOCore
internal import Synchronization
internal import WireProtocol

/// The digests of a device's blocks in pdiffcopy's format.
///
/// Each block has a line, in ascending order: its offset, a tab and the digest in hexadecimal.
final class HashSource: BodySource {
    private struct State: Sendable {
        var offset = 0
        /// `nil` once the last line is made; the client may take long to receive that.
        var use: SessionUse?
    }
    let length: Int
    let isChunked = true
    let permission: Permission
    private let size: Int
    private let block: Int
    private let method: DigestMethod
    private let state: Mutex<State>

    /// Bytes hashed for one piece of the list, up to the end of a block.
    private static let work = 8 << 20

    /// Maximum length of a line: an offset of at most 19 digits, a tab, the digest and a newline.
    ///
    /// - Parameter digest: length of a digest in bytes.
    private static func longestLine(digest: Int) -> Int { 19 + 1 + 2 * digest + 1 }

    /// - Parameter method: an unkeyed digest.
    /// - Throws: 400 if the length of the list does not fit an `Int`.
    init(_ use: SessionUse, block: Int, method: DigestMethod) throws(Problem) {
        self.method = method
        permission = use.session.permission
        size = use.session.device.geometry.size
        self.block = block
        guard let length = Self.length(size: size, block: block, digest: method.byteCount) else {
            throw Problem(
                .malformed, status: 400, "The list would be too long",
                detail: "the device has \(size) bytes, too many for blocks of \(block)")
        }
        self.length = length
        state = Mutex(State(use: use))
    }

    /// The digest that a client names; 400 if libcrypto does not have it, or if it needs a key.
    static func method(named name: String) throws(Problem) -> DigestMethod {
        let method: DigestMethod
        do throws(IOError) { method = try DigestMethod(named: name) } catch {
            throw problem(name, error.reason)
        }
        guard !method.isKeyed else { throw problem(name, "it needs a key") }
        return method
    }

    private static func problem(_ method: String, _ reason: String) -> Problem {
        Problem(
            .digest, status: 400, "The digest is not available", detail: reason,
            object: String(String.UnicodeScalarView(method.unicodeScalars.prefix(64))),
            candidates: DigestMethod.available().filter { !$0.isKeyed }.map(\.name))
    }

    /// Counts the bytes of all lines; `nil` if the sum does not fit an `Int`.
    ///
    /// - Parameter size: in bytes, at most `Geometry.maximumSize`.
    static func length(size: Int, block: Int, digest: Int) -> Int? {
        let count = (size + block - 1) / block
        guard count <= Int.max / longestLine(digest: digest) else { return nil }
        var digits = 0
        // Each round counts the lines whose offset has one digit more.
        var (limit, rest) = (1, count)
        while rest > 0 {
            digits += rest
            let (next, overflows) = limit.multipliedReportingOverflow(by: 10)
            guard !overflows else { break }
            limit = next
            rest = count - min(count, (limit + block - 1) / block)
        }
        return digits + count * (1 + 2 * digest + 1)
    }

    var isAtEnd: Bool { state.withLock { $0.offset } >= size }

    func next(_ memory: UnsafeMutableRawBufferPointer) throws(Problem) -> ByteBuffer {
        let (start, open) = state.withLock { ($0.offset, $0.use) }
        guard let use = open else { preconditionFailure("nothing is left to hash") }
        let most = max(1, ContentSource.step / Self.longestLine(digest: method.byteCount))
        let blocks = min(most, max(1, Self.work / block))
        let end = start + min(size - start, blocks * block)
        let lines: ByteBuffer
        do throws(IOError) {
            lines = try list(ByteRange(start, to: end), of: use.session.device, memory)
        } catch {
            throw Problem(error)
        }
        state.withLock { state in
            state.use?.session.count { counts, map in
                counts.compared += end - start
                map.mark(ByteRange(start, to: end), .compared)
            }
            state.offset = end
            // Before the client receives the end: its next request may write.
            if end == size { state.use = nil }
        }
        return lines
    }

    private func list(
        _ range: ByteRange, of device: any BlockDevice, _ memory: UnsafeMutableRawBufferPointer
    ) throws(IOError) -> ByteBuffer {
        var lines = ByteBuffer()
        let digits = Array("0123456789abcdef".utf8)
        let digest = AlignedBuffer(count: method.byteCount)
        var hasher = try BlockHasher(method, key: nil)
        var offset = range.offset
        var left = min(block, size - offset)
        lines.writeString("\(offset)\t")
        try hasher.begin()
        while offset < range.end {
            let piece = ByteRange(offset, to: min(offset + ContentSource.step, range.end))
            var bytes = try device.read(piece, staging: memory)[...]
            while !bytes.isEmpty {
                let part = bytes.prefix(left)
                try hasher.add(UnsafeRawBufferPointer(rebasing: part))
                bytes = bytes.dropFirst(part.count)
                offset += part.count
                left -= part.count
                guard left == 0 else { continue }
                try hasher.finish(into: digest.bytes)
                for byte in digest.bytes[..<method.byteCount] {
                    lines.writeInteger(digits[Int(byte >> 4)])
                    lines.writeInteger(digits[Int(byte & 15)])
                }
                lines.writeInteger(UInt8(ascii: "\n"))
                left = min(block, size - offset)
                guard offset < range.end else { break }
                lines.writeString("\(offset)\t")
                try hasher.begin()
            }
        }
        return lines
    }
}
