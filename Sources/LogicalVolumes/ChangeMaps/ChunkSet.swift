// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices

/// A set of chunk numbers; its memory depends on the spread of the numbers, not on their count.
struct ChunkSet {
    /// The bits of 4 KiB of memory.
    private static let pageSize = 32768
    private var pages: [Int: [UInt64]] = [:]

    /// Inserts a chunk; `false` if the set had it already.
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

    /// Lists the runs of adjacent chunks, ascending, in bytes; cuts the last chunk off at the
    /// limit.
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
