// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import LogicalVolumes

/// As what thin_dump writes, and as what thin_delta does.
func fuzzThinMetadata(_ bytes: UnsafeRawBufferPointer) {
    let text = Array(bytes)
    if let dump = try? ThinDump(xml: text, of: 4) {
        require(dump.mapped >= 0 && dump.mapped % 512 == 0, "whole sectors")
        var (end, sum) = (0, 0)
        for range in dump.ranges {
            require(range.offset >= end && range.length > 0, "ascending")
            (end, sum) = (range.end, sum + range.length)
        }
        require(sum == dump.mapped, "as much as is mapped")
    }
    guard let delta = try? ThinDelta(xml: text, from: 4, to: 5) else { return }
    for isOldAsMade in [true, false] {
        let map = delta.map(size: 1 << 60, oldSize: 1 << 59, isOldAsMade: isOldAsMade)
        var end = 0
        for range in map.ranges {
            require(range.offset >= end && range.end <= 1 << 60, "ascending, within the volume")
            end = range.end
        }
    }
}
