// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import CLinuxBlock
internal import Glibc
internal import LinuxIO

/// What a device-mapper device does, by the first line of its table.
struct MapperTarget: Hashable, Sendable {
    /// Such as `linear`, `thin-pool`.
    var type: String
    /// What follows the type.
    var parameters: String

    var isThinPool: Bool { type == "thin-pool" }

    init(type: String, parameters: String) {
        self.type = type
        self.parameters = parameters
    }

    /// Asks the kernel (`DM_TABLE_STATUS`).
    ///
    /// `nil` for what is no device of the mapper, and for users who may not ask.
    ///
    /// - Parameters:
    ///   - number: the device's (`st_rdev`).
    ///   - view: where the machine tells about its devices.
    init?(of number: UInt64, _ view: SystemView) {
        var target = clb_mapper_target()
        guard
            let control = try? OwnedDescriptor.open("\(view.dev)/mapper/control", flags: O_RDWR),
            clb_get_mapper_target(control.rawValue, number, &target) == 0
        else { return nil }
        type = Self.text(of: target.type)
        parameters = Self.text(of: target.parameters)
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

    /// What a C array of characters holds, up to the zero byte.
    private static func text<Characters>(of characters: Characters) -> String {
        withUnsafeBytes(of: characters) { bytes in
            String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
        }
    }
}
