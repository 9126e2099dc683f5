// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices

/// Random numbers that a seed determines, for data that a failed test can make again.
package struct SeededGenerator: RandomNumberGenerator {
    private var random: SplitMix64

    package init(seed: UInt64) { random = SplitMix64(seed: seed) }

    package mutating func next() -> UInt64 { random.next() }

    /// Fills a buffer with random bytes: word by word, which is quick without optimization as well.
    package mutating func fill(_ buffer: UnsafeMutableRawBufferPointer) {
        guard let start = buffer.baseAddress else { return }
        let wordSize = MemoryLayout<UInt64>.size
        let words = buffer.count / wordSize
        if Int(bitPattern: start) % MemoryLayout<UInt64>.alignment == 0 {
            start.withMemoryRebound(to: UInt64.self, capacity: words) { word in
                var index = 0
                while index < words {
                    word[index] = next().littleEndian
                    index &+= 1
                }
            }
        } else {
            for index in 0..<words {
                start.storeBytes(
                    of: next().littleEndian, toByteOffset: index * wordSize, as: UInt64.self)
            }
        }
        let rest = buffer.count % wordSize
        guard rest > 0 else { return }
        withUnsafeBytes(of: next().littleEndian) { word in
            UnsafeMutableRawBufferPointer(rebasing: buffer[(words * wordSize)...])
                .copyMemory(from: UnsafeRawBufferPointer(rebasing: word[..<rest]))
        }
    }

    /// A number of random bytes.
    package mutating func bytes(_ count: Int) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        bytes.withUnsafeMutableBytes { fill($0) }
        return bytes
    }
}
