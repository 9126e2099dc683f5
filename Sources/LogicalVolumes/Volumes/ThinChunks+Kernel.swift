// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices
package import LinuxIO

extension MapperTable.Target {
    package var isThinPool: Bool { type == "thin-pool" }

    /// Sectors: `DATA_DEV_BLOCK_SIZE_MAX_SECTORS` in the kernel's drivers/md/dm-thin.c.
    private static let longestChunk = (1 << 30) / 512

    /// The chunks of a pool; `nil` for other targets.
    ///
    /// Source: Documentation/admin-guide/device-mapper/thin-provisioning.rst: metadata device, data
    /// device, sectors of a chunk, low water mark, number of features, features.
    package var chunks: ThinChunks? {
        guard isThinPool else { return nil }
        guard words.count >= 4, let sectors = Int(words[2]),
            (1...Self.longestChunk).contains(sectors)
        else { return nil }
        return ThinChunks(
            size: sectors * 512, areZeroed: !words[4...].contains("skip_block_zeroing"))
    }
}

extension ThinChunks {
    /// Reads the chunks of the thin volume with an `st_rdev` from the kernel; `nil` for other
    /// devices.
    ///
    /// Also `nil` for a thin volume on an external origin: its discarded chunks read as the origin,
    /// not as zeros.
    ///
    /// - Throws: if the chunks of a thin volume cannot be determined.
    package init?(
        of number: UInt64, name: String, sys: String, mapper: DeviceMapper
    ) throws(IOError) {
        guard let volume = SystemDevice(number: number, sys: sys),
            let slaves = volume.slaves, slaves.count == 1, let pool = slaves.first?.device,
            let uuid = pool.attribute("dm/uuid"), uuid.hasPrefix("LVM-"), uuid.hasSuffix("-tpool")
        else { return nil }
        let table = pool.number.flatMap { mapper.table(of: $0) }
        if let chunks = table?.targets.first?.chunks {
            self = chunks
            return
        }
        // Without the table it is unknown whether chunks are zeroed.
        guard let size = volume.integer("queue/discard_granularity"),
            (1...1 << 30).contains(size)
        else {
            throw IOError(name, "open", reason: "the chunks of its thin pool cannot be determined")
        }
        self.init(size: size, areZeroed: false)
    }
}
