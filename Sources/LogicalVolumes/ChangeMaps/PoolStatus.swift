// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import LinuxIO

/// A thin pool's status, as the kernel reports it.
///
/// Source: `pool_status` in drivers/md/dm-thin.c. The fields are the transaction id, used and total
/// blocks of metadata and of data, the root of the metadata snapshot or `-`, the mode, and further
/// words whose number grows with kernel versions.
struct PoolStatus: Hashable {
    var transaction: Int
    /// The block at which the held metadata snapshot starts; `nil` if none is held.
    var heldRoot: Int?

    /// Parses a status; throws if the pool's metadata cannot be trusted.
    init(_ target: MapperTable.Target, of pool: String) throws(IOError) {
        guard target.type == "thin-pool" else {
            throw .noChangeMap(pool, "it is of type \(target.type), no thin pool")
        }
        let words = target.words
        if let word = words.first, ["Fail", "Error"].contains(word) {
            throw .noChangeMap(pool, "the pool has failed (\(word))")
        }
        guard words.count >= 5, let transaction = Int(words[0]),
            words[1].contains("/"), words[2].contains("/"), words[3] == "-" || Int(words[3]) != nil
        else {
            throw .noChangeMap(
                pool, "its status is not known: \(words.joined(separator: " "))")
        }
        // The metadata of a pool without room for data is intact.
        guard ["rw", "out_of_data_space"].contains(words[4]) else {
            throw .noChangeMap(pool, "the pool is not writable (\(words[4]))")
        }
        guard !words[5...].contains("needs_check") else {
            throw .noChangeMap(pool, "the pool's metadata needs to be checked")
        }
        self.transaction = transaction
        heldRoot = Int(words[3])
    }

    /// Parses the held root alone, even of a pool that cannot be trusted; `nil` if it is unknown.
    static func heldRoot(in words: [Substring]) -> Int? {
        words.count >= 4 && words[1].contains("/") && words[2].contains("/") ? Int(words[3]) : nil
    }
}
