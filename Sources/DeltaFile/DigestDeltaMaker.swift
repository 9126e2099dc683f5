// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices
internal import Glibc
package import LinuxIO

/// A base of which only the digests of its blocks are known.
package protocol BaseDigests: Sendable {
    /// As the user named it.
    var name: String { get }
    /// Bytes of the base.
    var size: Int { get }
    /// Bytes of a block; the last one may be shorter.
    var block: Int { get }
    /// What identifies all of the base; goes into the trailer.
    var identity: String { get }

    /// Writes the SHA-256 digests of the blocks of a range, which starts with a block.
    func digests(
        of range: ByteRange, into buffer: UnsafeMutableRawBufferPointer
    ) throws(IOError)
}

/// Compares a result with the digests of its base, and writes the delta between them.
///
/// The digests of the blocks that differ are the proofs of the delta. Both states have the same
/// size, since nothing is known of the bytes that would be cut off.
package struct DigestDeltaMaker: Sendable {
    private let result: any BlockDevice
    private let base: any BaseDigests
    private let name: String
    private let directory: String
    private let isCancelled: @Sendable () -> Bool

    /// - Parameters:
    ///   - name: of the result.
    ///   - directory: for a temporary file.
    package init(
        result: any BlockDevice, name: String, base: any BaseDigests, directory: String,
        isCancelled: @escaping @Sendable () -> Bool
    ) {
        self.result = result
        self.name = name
        self.base = base
        self.directory = directory
        self.isCancelled = isCancelled
    }

    /// Writes the delta; if it throws, the sink has no complete one.
    ///
    /// - Parameter check: called before the delta is completed; what it throws prevents that.
    package func write(
        to sink: DeltaSink, check: () throws(IOError) -> Void
    ) throws(IOError) -> DeltaMaker.Summary {
        let size = result.geometry.size
        guard size == base.size else {
            throw .refusal(
                .size, base.name, "it is of \(base.size) bytes, and \(name) has \(size)",
                advice: "Only equal sizes can be compared with a digest file.")
        }
        let writer = try DeltaWriter(
            sink, size: size, unit: base.block, proof: 32, directory: directory)
        let windows = WindowStream(result, size: size)
        defer { windows.stop() }
        let whole = try RunningDigest()
        let blocks = try BlockDigests(base)
        while let window = try windows.next() {
            if isCancelled() { throw DeltaMaker.cancelled(name) }
            try inParallel({ () throws(IOError) in
                try whole.add(window.content, count: window.range.length)
            }) { () throws(IOError) in
                try blocks.forEachDifference(window) { range, bytes, proofs throws(IOError) in
                    try writer.add(range, bytes, proofs: proofs)
                }
            }
        }
        try check()
        try writer.end()
        let statement = DeltaStatement(
            base: .init(name: base.name, size: size, digest: base.identity), baseDigest: .verity,
            result: .init(name: name, size: size, digest: try whole.finishAsText()),
            unit: base.block, proof: 32, tail: nil, records: writer.records, data: writer.data,
            zeros: writer.zeros, made: time(nil))
        return DeltaMaker.Summary(
            statement: statement, length: try writer.finish(statement), unread: 0)
    }
}

/// Compares windows with the digests of a base.
private final class BlockDigests {
    private let base: any BaseDigests
    private var hasher: UnitHasher
    private let memory: AlignedBuffer
    private let zeros: AlignedBuffer
    /// Of a whole block of zeros.
    private let zeroDigest: [UInt8]

    init(_ base: any BaseDigests) throws(IOError) {
        self.base = base
        hasher = try UnitHasher(size: 32)
        memory = AlignedBuffer(count: WindowStream.length / base.block * 32)
        zeros = AlignedBuffer(count: base.block)
        let block = UnsafeRawBufferPointer(slice(zeros.bytes, 0, base.block))
        zeroDigest = Array(try hasher.proof(of: block))
    }

    /// Calls a function with runs of blocks that differ, of data or of zeros, and the digests of
    /// the base's blocks.
    func forEachDifference(
        _ window: WindowStream.Window,
        _ body: (ByteRange, UnsafeRawBufferPointer?, [UInt8]) throws(IOError) -> Void
    ) throws(IOError) {
        let range = window.range
        let blocks = ByteRange(offset: 0, length: range.length).pieces(of: base.block)
        let known = slice(memory.bytes, 0, blocks.count * 32)
        try base.digests(of: range, into: known)
        var bytes: UnsafeRawBufferPointer?
        if case .data(let data) = window.content { bytes = data }
        var run: (range: ByteRange, isZero: Bool, proofs: [UInt8])?
        func close() throws(IOError) {
            guard let found = run else { return }
            run = nil
            try body(
                ByteRange(offset: range.offset + found.range.offset, length: found.range.length),
                found.isZero ? nil : bytes.map { slice($0, found.range.offset, found.range.end) },
                found.proofs)
        }
        for (index, block) in blocks.enumerated() {
            let old = known[index * 32..<(index + 1) * 32]
            let now = bytes.map { slice($0, block.offset, block.end) }
            if try isSame(now, block.length, as: old) {
                try close()
                continue
            }
            let isZeroed = now.map(isZero) ?? true
            if let found = run, found.isZero == isZeroed {
                run = (
                    ByteRange(found.range.offset, to: block.end), isZeroed, found.proofs + old
                )
            } else {
                try close()
                run = (block, isZeroed, Array(old))
            }
        }
        try close()
    }

    private func isSame(
        _ bytes: UnsafeRawBufferPointer?, _ length: Int,
        as digest: Slice<UnsafeMutableRawBufferPointer>
    ) throws(IOError) -> Bool {
        if bytes == nil, length == base.block { return digest.elementsEqual(zeroDigest) }
        let content = bytes ?? UnsafeRawBufferPointer(slice(zeros.bytes, 0, length))
        return digest.elementsEqual(try hasher.proof(of: content))
    }
}
