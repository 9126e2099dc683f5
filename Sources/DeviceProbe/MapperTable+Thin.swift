// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices

extension MapperTable.Target {
    var isThinPool: Bool { type == "thin-pool" }

    /// The first line of a device's table.
    ///
    /// `nil` for what is no device of the mapper, and for users who may not ask.
    ///
    /// - Parameters:
    ///   - number: the device's (`st_rdev`).
    ///   - view: where the machine tells about its devices.
    init?(of number: UInt64, _ view: SystemView) {
        let table = MapperTable(of: number, control: "\(view.dev)/mapper/control")
        guard let first = table?.targets.first else { return nil }
        self = first
    }

    /// The chunks of a pool; `nil` for what is none.
    ///
    /// Source: Documentation/admin-guide/device-mapper/thin-provisioning.rst: metadata device, data
    /// device, sectors of a chunk, low water mark, number of features, features.
    var chunks: ThinChunks? {
        guard isThinPool else { return nil }
        let words = parameters.split(separator: " ")
        guard words.count >= 4, let sectors = Int(words[2]), (1...Int.max / 512).contains(sectors)
        else { return nil }
        return ThinChunks(
            size: sectors * 512, areZeroed: !words[4...].contains("skip_block_zeroing"))
    }
}
