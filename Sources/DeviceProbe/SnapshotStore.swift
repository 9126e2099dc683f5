// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices

/// The store of a classic snapshot, in chunks of the size that LVM makes by default.
package enum SnapshotStore {
    /// Bytes.
    package static let chunk = 4096

    /// What a store needs at most: every chunk of the volume, 16 bytes for each, and the header.
    ///
    /// Source: drivers/md/dm-snap-persistent.c.
    ///
    /// - Parameter size: of the volume, in bytes.
    /// - Returns: bytes, in whole chunks.
    package static func fullSize(of size: Int) -> Int {
        let chunks = size.roundedUp(to: chunk) / chunk
        let entries = chunk / 16
        return (chunks + (chunks + entries) / entries + 1) * chunk
    }
}
