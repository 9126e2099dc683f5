// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices

/// Places of a device that stand for all of it: its first and last regions, where file systems,
/// partition tables and volume groups keep what changes with every use, and others at random.
package struct SamplePlan: Hashable, Sendable {
    /// In bytes: ascending, apart from each other.
    package let ranges: [Range<Int>]

    /// Bytes of a place.
    package static let region = 64 << 10

    /// Chooses places.
    ///
    /// - Parameters:
    ///   - size: bytes of the device.
    ///   - share: which part of it they are together: one in so many bytes.
    ///   - most: how many places at most; a few are taken of the smallest device.
    ///   - seed: the same seed chooses the same places of a device of the same size.
    package init(size: Int, oneIn share: Int, atMost most: Int, seed: UInt64) {
        precondition(size > 0 && share > 0 && most >= Self.least)
        let regions = (size + Self.region - 1) / Self.region
        let count = min(regions, max(Self.least, min(most, regions / share)))
        var chosen: Set = [0, min(1, regions - 1), regions - 1]
        var generator = SplitMix64(seed: seed)
        while chosen.count < count { chosen.insert(Int.random(in: 0..<regions, using: &generator)) }
        ranges = chosen.sorted().map { index in
            index * Self.region..<min(size, (index + 1) * Self.region)
        }
    }

    /// Places of every device, however small.
    private static let least = 8
}
