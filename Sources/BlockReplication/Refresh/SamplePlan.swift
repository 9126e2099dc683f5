// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices

/// Places of a device that represent all of it: random ones, and its first and last regions.
///
/// File systems, partition tables and volume groups change these regions with every use.
struct SamplePlan: Hashable, Sendable {
    /// In bytes, ascending and disjoint.
    let ranges: [Range<Int>]

    /// Bytes of a place.
    static let region = BlockLayout.smallestRegion

    /// Chooses places; the same seed and size yield the same ones.
    ///
    /// - Parameters:
    ///   - size: bytes of the device.
    ///   - share: the places cover about one byte in this number.
    ///   - most: maximum number of places, at least 8.
    init(size: Int, oneIn share: Int, atMost most: Int, seed: UInt64) {
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

    /// Minimum number of places, unless the device has fewer regions.
    private static let least = 8
}
