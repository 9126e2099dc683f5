// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import Digests
internal import LinuxIO
internal import NIOCore
internal import Synchronization
internal import WireProtocol

/// The digests of a device's blocks as pdiffcopy tells them, a line for each block in ascending
/// order: its offset, a tab and the digest in hexadecimal.
final class HashSource: BodySource {
    private struct State: Sendable {
        /// Of the next block, in bytes.
        var offset = 0
        /// Until the last line is made.
        var use: SessionUse?
    }
    let length: Int
    let isChunked = true
    private let device: any BlockDevice
    private let size: Int
    private let block: Int
    private let method: DigestMethod
    private let state: Mutex<State>

    /// Bytes of a device that are read in one go.
    private static let step = 1 << 20
    /// Bytes of a device that are hashed for one piece, but for the rest of a block.
    private static let work = 8 << 20

    /// - Parameters:
    ///   - use: of the session that the device is read by; it ends with the last line.
    ///   - block: bytes of a block; the last one may be cut off.
    ///   - method: one without a key.
    init(_ use: SessionUse, block: Int, method: DigestMethod) {
        self.method = method
        device = use.session.device
        size = device.geometry.size
        self.block = block
        length = Self.length(size: size, block: block, digest: method.byteCount)
        state = Mutex(State(use: use))
    }

    /// The digest that a client names.
    ///
    /// - Throws: where libcrypto does not have it, or it needs a key.
    static func method(named name: String) throws(Problem) -> DigestMethod {
        let method: DigestMethod
        do throws(DigestError) { method = try DigestMethod(named: name) } catch {
            throw problem(name, error.reason)
        }
        guard !method.isKeyed else { throw problem(name, "it needs a key") }
        return method
    }

    private static func problem(_ method: String, _ reason: String) -> Problem {
        var problem = Problem(.digest, status: 400, "The digest cannot be had", detail: reason)
        problem.object = String(String.UnicodeScalarView(method.unicodeScalars.prefix(64)))
        problem.candidates = DigestMethod.available().filter { !$0.isKeyed }.map(\.name)
        return problem
    }

    /// Bytes of all lines.
    static func length(size: Int, block: Int, digest: Int) -> Int {
        let count = (size + block - 1) / block
        var digits = 0
        // Lines whose offset has at least so many digits.
        var (limit, rest) = (1, count)
        while rest > 0 {
            digits += rest
            let (next, isOver) = limit.multipliedReportingOverflow(by: 10)
            guard !isOver else { break }
            limit = next
            rest = count - min(count, (limit + block - 1) / block)
        }
        return digits + count * (1 + 2 * digest + 1)
    }

    var isAtEnd: Bool { state.withLock { $0.offset } >= size }

    func next(_ memory: UnsafeMutableRawBufferPointer) throws(Problem) -> ByteBuffer {
        let start = state.withLock { $0.offset }
        // A line has 20 digits at most, a tab and its end.
        let lines = max(1, ContentSource.step / (22 + 2 * method.byteCount))
        let blocks = min(lines, max(1, Self.work / block))
        let end = start + min(size - start, blocks * block)
        var lister = try Lister(method)
        try list(ByteRange(start, to: end), memory, &lister)
        state.withLock { state in
            state.use?.session.count { $0.compared += end - start }
            state.offset = end
            // Before the client has the end: it may go on to write.
            if end == size { state.use = nil }
        }
        return lister.lines
    }

    /// Hashes whole blocks, and the cut-off one at the end.
    private func list(
        _ range: ByteRange, _ memory: UnsafeMutableRawBufferPointer, _ lister: inout Lister
    ) throws(Problem) {
        var offset = range.offset
        var left = min(block, size - offset)
        try lister.begin(at: offset)
        while offset < range.end {
            let piece = ByteRange(offset, to: min(offset + Self.step, range.end))
            var bytes: Slice<UnsafeRawBufferPointer>
            do throws(IOError) { bytes = try device.read(piece, staging: memory)[...] } catch {
                throw Problem(error)
            }
            while !bytes.isEmpty {
                let part = bytes.prefix(left)
                try lister.add(UnsafeRawBufferPointer(rebasing: part))
                bytes = bytes.dropFirst(part.count)
                offset += part.count
                left -= part.count
                guard left == 0 else { continue }
                try lister.end()
                left = min(block, size - offset)
                if offset < range.end { try lister.begin(at: offset) }
            }
        }
    }
}

/// Writes lines of offset and digest.
private struct Lister: ~Copyable {
    private(set) var lines: ByteBuffer
    private var hasher: BlockHasher
    private let digest: Scratch

    init(_ method: DigestMethod) throws(Problem) {
        do throws(DigestError) { hasher = try BlockHasher(method, key: nil) } catch {
            throw Problem(error)
        }
        digest = Scratch(method.byteCount)
        lines = ByteBuffer()
    }

    mutating func begin(at offset: Int) throws(Problem) {
        lines.writeString("\(offset)\t")
        do throws(DigestError) { try hasher.begin() } catch { throw Problem(error) }
    }

    mutating func add(_ bytes: UnsafeRawBufferPointer) throws(Problem) {
        do throws(DigestError) { try hasher.add(bytes) } catch { throw Problem(error) }
    }

    mutating func end() throws(Problem) {
        do throws(DigestError) { try hasher.finish(into: digest.bytes) } catch {
            throw Problem(error)
        }
        let digits = StaticString("0123456789abcdef")
        digits.withUTF8Buffer { digits in
            for byte in digest.bytes {
                lines.writeInteger(digits[Int(byte >> 4)])
                lines.writeInteger(digits[Int(byte & 15)])
            }
        }
        lines.writeInteger(UInt8(ascii: "\n"))
    }
}
