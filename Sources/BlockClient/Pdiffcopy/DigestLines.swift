// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
internal import WireProtocol

/// The digests of a file's blocks, as `GET /hashes` of pdiffcopy returns them.
///
/// Each block has a line with its offset, a tab and the digest in hexadecimal. The lines come in
/// any order.
struct DigestLines {
    /// Limit of one file's digests in bytes.
    static let memoryLimit = 512 << 20

    let count: Int
    private let size: Int
    private let block: Int
    private let digestSize: Int
    private var digests: [UInt8]
    /// One bit for each block, set if its digest is known.
    private var known: BitSet
    /// The same for the current attempt.
    private var seen: BitSet
    private var seenCount = 0
    /// An incomplete line at the end of the last piece.
    private var rest: [UInt8] = []

    /// Makes an empty table; sizes in bytes.
    init(size: Int, block: Int, digestSize: Int) {
        count = Self.count(size: size, block: block)
        self.size = size
        self.block = block
        self.digestSize = digestSize
        digests = [UInt8](repeating: 0, count: count * digestSize)
        known = BitSet(count: count)
        seen = BitSet(count: count)
    }

    static func count(size: Int, block: Int) -> Int { (size + block - 1) / block }

    /// Prepares for another attempt, which sends all lines again; known digests stay.
    mutating func restart() {
        seen = BitSet(count: count)
        seenCount = 0
        rest = []
    }

    /// Parses received bytes; throws for the first invalid line.
    mutating func take(_ bytes: UnsafeRawBufferPointer) throws(WireError) {
        var bytes = bytes[...]
        while let end = bytes.firstIndex(of: UInt8(ascii: "\n")) {
            let piece = UnsafeRawBufferPointer(rebasing: bytes[bytes.startIndex..<end])
            bytes = bytes[(end + 1)...]
            if rest.isEmpty {
                try take(line: piece)
            } else {
                try keep(piece)
                let line = rest
                rest = []
                let result = line.withUnsafeBytes { line in
                    Result { () throws(WireError) in try take(line: line) }
                }
                try result.get()
            }
        }
        try keep(UnsafeRawBufferPointer(rebasing: bytes))
    }

    /// Throws if the current attempt is incomplete.
    func end() throws(WireError) {
        guard rest.isEmpty else { throw WireError("the last line has no end") }
        guard seenCount == count else {
            throw WireError("\(count - seenCount) of \(count) blocks are missing")
        }
    }

    var isComplete: Bool { seenCount == count }

    private mutating func keep(_ piece: UnsafeRawBufferPointer) throws(WireError) {
        // An offset has at most 19 digits.
        guard rest.count + piece.count <= 19 + 1 + 2 * digestSize else {
            throw WireError("a line is too long")
        }
        rest += piece
    }

    private mutating func take(line: UnsafeRawBufferPointer) throws(WireError) {
        guard let tab = line.firstIndex(of: UInt8(ascii: "\t")), (1...19).contains(tab) else {
            throw WireError("a line is not an offset, a tab and a digest")
        }
        var offset = 0
        for byte in line[..<tab] {
            guard let digit = Self.digit(byte), digit < 10 else {
                throw WireError("a line is not an offset, a tab and a digest")
            }
            let (product, isLarge) = offset.multipliedReportingOverflow(by: 10)
            let (sum, isLarger) = product.addingReportingOverflow(Int(digit))
            guard !isLarge && !isLarger else { throw WireError("an offset is too large") }
            offset = sum
        }
        guard offset % block == 0, offset < size else {
            throw WireError("offset \(offset): not one of a block")
        }
        let index = offset / block
        guard seen.insert(index) else { throw WireError("offset \(offset): twice") }
        try take(digest: line, from: tab + 1, index)
        seenCount += 1
        known.insert(index)
    }

    private mutating func take(
        digest line: UnsafeRawBufferPointer, from start: Int, _ index: Int
    ) throws(WireError) {
        guard line.count - start == 2 * digestSize else {
            throw WireError("offset \(index * block): not a digest of \(digestSize) bytes")
        }
        for byte in 0..<digestSize {
            let place = start + 2 * byte
            guard let high = Self.digit(line[place]), let low = Self.digit(line[place + 1]) else {
                throw WireError("offset \(index * block): a digest is not hexadecimal")
            }
            digests[index * digestSize + byte] = high << 4 | low
        }
    }

    /// Returns the value of a digit as Python writes it, in lower case.
    private static func digit(_ byte: UInt8) -> UInt8? {
        switch byte {
        case UInt8(ascii: "0")...UInt8(ascii: "9"): byte - UInt8(ascii: "0")
        case UInt8(ascii: "a")...UInt8(ascii: "f"): byte - UInt8(ascii: "a") + 10
        default: nil
        }
    }

    /// Returns the first of some blocks whose digest is unknown; `nil` if all are known.
    func firstUnknown(_ blocks: Range<Int>) -> Int? { blocks.first { !known.contains($0) } }

    func copy(_ blocks: Range<Int>, to memory: UnsafeMutableRawBufferPointer) {
        digests.withUnsafeBytes { digests in
            memory.copyMemory(
                from: UnsafeRawBufferPointer(
                    rebasing: digests[
                        blocks.lowerBound * digestSize..<blocks.upperBound * digestSize]))
        }
    }
}

/// A set of numbers below a limit.
private struct BitSet {
    private var words: [UInt64]

    init(count: Int) { words = [UInt64](repeating: 0, count: (count + 63) / 64) }

    func contains(_ number: Int) -> Bool { words[number / 64] >> (number % 64) & 1 == 1 }

    @discardableResult
    mutating func insert(_ number: Int) -> Bool {
        let isNew = !contains(number)
        words[number / 64] |= 1 << (number % 64)
        return isNew
    }
}
