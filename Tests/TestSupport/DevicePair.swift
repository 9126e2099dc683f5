// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices
internal import Glibc

/// The content of two devices, made from a seed: they differ in some places, and both have zeros.
package struct DevicePair: Sendable {
    package let seed: UInt64
    package private(set) var source: [UInt8]
    package private(set) var target: [UInt8]
    /// The block size of a run, in bytes.
    package let block: Int

    /// Makes a pair.
    ///
    /// - Parameters:
    ///   - seed: determines everything.
    ///   - size: in bytes; `nil` for any up to `largest`.
    ///   - largest: in bytes.
    ///   - longestChange: the most adjacent bytes that are changed at once.
    package init(
        seed: UInt64, size: Int? = nil, largest: Int = 5 << 20, longestChange: Int = 200_000
    ) {
        var random = SeededGenerator(seed: seed)
        self.seed = seed
        block = [512, 1024, 1536, 4096, 5120, 65536, 66048][Int(seed % 7)]
        let size = size ?? Int.random(in: 1...largest, using: &random)
        source = random.bytes(size)
        target = source
        for _ in 0..<Int.random(in: 0...40, using: &random) {
            let start = Int.random(in: 0..<size, using: &random)
            let end = min(size, start + Int.random(in: 1...longestChange, using: &random))
            switch Int.random(in: 0..<4, using: &random) {
            case 0: for index in start..<end { source[index] = 0 }
            case 1: for index in start..<end { target[index] = 0 }
            case 2:
                for index in start..<end {
                    source[index] = 0
                    target[index] = 0
                }
            default: for index in start..<end { target[index] &+= 3 }
            }
        }
    }

    /// The blocks in which the two differ, ascending.
    ///
    /// - Parameter block: their size, in bytes.
    package func differing(block: Int) -> [ByteRange] {
        stride(from: 0, to: source.count, by: block).compactMap { start in
            let end = min(source.count, start + block)
            let isEqual = source.withUnsafeBytes { old in
                target.withUnsafeBytes { new in
                    guard let old = old.baseAddress, let new = new.baseAddress else { return true }
                    return memcmp(old + start, new + start, end - start) == 0
                }
            }
            return isEqual ? nil : ByteRange(start, to: end)
        }
    }
}
