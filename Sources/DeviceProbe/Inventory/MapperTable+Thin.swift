// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices

extension MapperTable.Target {
    var isThinPool: Bool { type == "thin-pool" }

    /// The first line of a device-mapper table; `nil` for other devices, or if the user may not
    /// ask.
    init?(of number: UInt64, _ view: SystemView) {
        let table = MapperTable(of: number, control: "\(view.dev)/mapper/control")
        guard let first = table?.targets.first else { return nil }
        self = first
    }

    /// Sectors: `DATA_DEV_BLOCK_SIZE_MAX_SECTORS` in the kernel's drivers/md/dm-thin.c.
    private static let longestChunk = (1 << 30) / 512

    /// The chunks of a pool; `nil` for other targets.
    ///
    /// Source: Documentation/admin-guide/device-mapper/thin-provisioning.rst: metadata device, data
    /// device, sectors of a chunk, low water mark, number of features, features.
    var chunks: ThinChunks? {
        guard isThinPool else { return nil }
        let words = parameters.split(separator: " ")
        guard words.count >= 4, let sectors = Int(words[2]),
            (1...Self.longestChunk).contains(sectors)
        else { return nil }
        return ThinChunks(
            size: sectors * 512, areZeroed: !words[4...].contains("skip_block_zeroing"))
    }
}
