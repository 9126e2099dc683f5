// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices

/// A set of chunk numbers, in memory that grows with where they are, not with how many.
struct ChunkSet {
    /// Bits of 4 KiB of memory.
    private static let pageSize = 32768
    private var pages: [Int: [UInt64]] = [:]

    /// Puts a chunk in.
    ///
    /// - Returns: `false` where it was in already.
    mutating func insert(_ chunk: Int) -> Bool {
        let (word, mask) = (chunk % Self.pageSize / 64, UInt64(1) << UInt64(chunk % 64))
        return Self.insert(
            mask, word,
            &pages[chunk / Self.pageSize, default: Array(repeating: 0, count: Self.pageSize / 64)])
    }

    private static func insert(_ mask: UInt64, _ word: Int, _ page: inout [UInt64]) -> Bool {
        defer { page[word] |= mask }
        return page[word] & mask == 0
    }

    /// Lists the runs of adjacent chunks, ascending, in bytes.
    ///
    /// - Parameters:
    ///   - chunkSize: bytes of a chunk.
    ///   - limit: bytes; where the last chunk is cut.
    /// - Returns: the runs.
    func ranges(chunkSize: Int, limit: Int) -> [ByteRange] {
        var result: [ByteRange] = []
        for (number, page) in pages.sorted(by: { $0.key < $1.key }) {
            for (index, word) in page.enumerated() where word != 0 {
                for bit in 0..<64 where word >> UInt64(bit) & 1 == 1 {
                    let chunk = number * Self.pageSize + index * 64 + bit
                    let start = chunk * chunkSize
                    let end = start + min(chunkSize, limit - start)
                    if let last = result.last, last.end == start {
                        result[result.count - 1] = ByteRange(last.offset, to: end)
                    } else {
                        result.append(ByteRange(start, to: end))
                    }
                }
            }
        }
        return result
    }
}
