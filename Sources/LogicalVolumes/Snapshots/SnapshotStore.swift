// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices

/// The store of a classic snapshot, in chunks of LVM's default size.
package enum SnapshotStore {
    /// Bytes.
    package static let chunk = 4096

    /// The largest store that a volume of `size` bytes can need, in bytes.
    ///
    /// It holds every chunk of the volume, 16 bytes for each, and the header. For a volume of
    /// almost 8 EiB, which LVM can make, it is the most whole chunks that an `Int` holds. Source:
    /// drivers/md/dm-snap-persistent.c.
    package static func fullSize(of size: Int) -> Int {
        let chunks = size.roundedUp(to: chunk) / chunk
        let entries = chunk / 16
        let needed = chunks + (chunks + entries) / entries + 1
        return min(needed, .max / chunk) * chunk
    }
}
