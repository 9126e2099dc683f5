// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

/// The content of a snapshot's tag: a target was the exact replica of the snapshot at the end of a
/// run.
///
/// It also holds what a later run needs to check whether that is still so. A run writes it after
/// all data is durable, and removes it before the next write to the target.
package struct ReplicaRecord: Hashable, Sendable {
    /// The target's identity, in letters and digits.
    package var target: String
    /// A change counter of the target, in letters and digits.
    package var mark: String
    /// The seed of the target's sample places, which `root` is a digest of.
    package var seed: UInt64
    /// The digest of the samples, hexadecimal.
    package var root: String
    /// The number of the run, greater than that of every earlier record.
    package var number: Int
    /// Bytes that a thin snapshot had mapped when blkferry made it; `nil` if unknown.
    package var mapped: Int?
    /// The snapshot's identity, see `identity(of:)`.
    package var snapshot: String

    package init(
        of snapshot: LogicalVolume, target: String, mark: String, seed: UInt64, root: String,
        number: Int
    ) {
        self.snapshot = Self.identity(of: snapshot)
        mapped = snapshot.mappedWhenMade
        self.target = target
        self.mark = mark
        self.seed = seed
        self.root = root
        self.number = number
    }

    /// Returns whether the record describes this snapshot in its current state.
    package func isOf(_ volume: LogicalVolume) -> Bool { snapshot == Self.identity(of: volume) }

    /// Builds the identity of a snapshot: the UUIDs of its group, its origin and itself, its thin
    /// id, the transaction that made it, and its size.
    ///
    /// A group restored from its backup, or a volume cloned with its tags, has a different
    /// identity.
    private static func identity(of volume: LogicalVolume) -> String {
        let parts: [String?] = [
            volume.groupUUID, volume.originUUID, volume.uuid, volume.thinID.map { "\($0)" },
            volume.transaction.map { "\($0)" }, "\(volume.size)",
        ]
        return parts.map { $0 ?? "none" }.joined(separator: ":")
    }

    // MARK: As a tag

    /// The prefix of the tags; the number is the version of the format.
    private static let prefix = "blkferry.replica=2"
    /// The prefix of records without `mapped`.
    private static let oldPrefix = "blkferry.replica=1"

    /// The tag; it uses only characters that lvm(8) allows, and fewer than the 1024 that a tag may
    /// have.
    package var tag: String {
        [
            Self.prefix, "\(number)", target, mark, String(seed, radix: 16), root,
            mapped.map { "\($0)" } ?? "none", snapshot,
        ].joined(separator: "/")
    }

    /// Parses a tag; `nil` for any other tag.
    package init?(tag: String) {
        var parts = tag.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
        if parts.count == 7, parts[0] == Self.oldPrefix {
            parts[0] = Self.prefix
            parts.insert("none", at: 6)
        }
        guard parts.count == 8, parts[0] == Self.prefix, let number = Int(parts[1]),
            let seed = UInt64(parts[4], radix: 16), parts[2...].allSatisfy({ !$0.isEmpty })
        else { return nil }
        self.number = number
        target = parts[2]
        mark = parts[3]
        self.seed = seed
        root = parts[5]
        mapped = Int(parts[6])
        guard mapped != nil || parts[6] == "none" else { return nil }
        snapshot = parts[7]
    }
}

extension LogicalVolume {
    /// Finds the newest valid record of a target in the tags; `nil` if there is none.
    package func replica(on target: String) -> ReplicaRecord? {
        let records = tags.compactMap { ReplicaRecord(tag: $0) }
        return records.filter { $0.target == target && $0.isOf(self) }
            .max { $0.number < $1.number }
    }
}
