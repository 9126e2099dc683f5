// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

/// What the kernel tells of a thin pool.
///
/// Source: `pool_status` in drivers/md/dm-thin.c: transaction id, used and total blocks of metadata
/// and of data, root of the metadata snapshot or `-`, mode, and words that may grow in number.
struct PoolStatus: Hashable {
    var transaction: Int
    /// Where the metadata snapshot that somebody holds starts, in blocks; `nil` where nobody does.
    var heldRoot: Int?

    /// Reads a status.
    ///
    /// - Throws: where the pool's metadata is not to be trusted.
    init(_ target: DeviceMapper.Target, of pool: String) throws(ChangeMapError) {
        guard target.type == "thin-pool" else {
            throw ChangeMapError(pool, "it is of type \(target.type), no thin pool")
        }
        let words = target.words
        if let word = words.first, ["Fail", "Error"].contains(word) {
            throw ChangeMapError(pool, "the pool has failed (\(word))")
        }
        guard words.count >= 5, let transaction = Int(words[0]),
            words[1].contains("/"), words[2].contains("/"), words[3] == "-" || Int(words[3]) != nil
        else {
            throw ChangeMapError(
                pool, "its status is not known: \(words.joined(separator: " "))")
        }
        // A pool that has no room for data goes on with what it has; its metadata is whole.
        guard ["rw", "out_of_data_space"].contains(words[4]) else {
            throw ChangeMapError(pool, "the pool is not writable (\(words[4]))")
        }
        guard !words[5...].contains("needs_check") else {
            throw ChangeMapError(pool, "the pool's metadata needs to be checked")
        }
        self.transaction = transaction
        heldRoot = Int(words[3])
    }

    /// The held root alone, also of a pool that cannot be trusted any more; `nil` where it is
    /// unknown.
    static func heldRoot(in target: DeviceMapper.Target) -> Int? {
        target.words.count >= 4 ? Int(target.words[3]) : nil
    }
}
