// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

/// What a snapshot's tag says: that a target was, when a run had ended, the exact replica of the
/// snapshot, and how to tell whether it still is.
///
/// It is written when all is on the medium, and removed before the target is written to again.
package struct ReplicaRecord: Hashable, Sendable {
    /// Which target it is about.
    package var target: String
    /// Changes when somebody writes to the target.
    package var mark: String
    /// Determines which places of the target `root` is a digest of.
    package var seed: UInt64
    /// The digest, hexadecimal.
    package var root: String
    /// Counts the runs, so that the newest record is known.
    package var number: Int
    /// What the snapshot was: see `identity(of:)`.
    package var snapshot: String

    /// Makes a record of a snapshot.
    ///
    /// - Parameters:
    ///   - snapshot: what the target is a replica of.
    ///   - target: which target; letters and digits.
    ///   - mark: changes when somebody writes to the target; letters and digits.
    ///   - seed: determines the places.
    ///   - root: their digest, hexadecimal.
    ///   - number: greater than those of all records before.
    package init(
        of snapshot: LogicalVolume, target: String, mark: String, seed: UInt64, root: String,
        number: Int
    ) {
        self.snapshot = Self.identity(of: snapshot)
        self.target = target
        self.mark = mark
        self.seed = seed
        self.root = root
        self.number = number
    }

    /// Whether it is about this snapshot, as it is now.
    package func isOf(_ volume: LogicalVolume) -> Bool { snapshot == Self.identity(of: volume) }

    /// What a snapshot keeps as long as it is the same: the UUIDs of its group, its origin and
    /// itself, its number in the pool and the transaction that made it, its size.
    ///
    /// A group that was restored from its backup, or volumes that were cloned with their tags, have
    /// others.
    private static func identity(of volume: LogicalVolume) -> String {
        let parts: [String?] = [
            volume.groupUUID, volume.originUUID, volume.uuid, volume.thinID.map { "\($0)" },
            volume.transaction.map { "\($0)" }, "\(volume.size)",
        ]
        return parts.map { $0 ?? "none" }.joined(separator: ":")
    }

    // MARK: As a tag

    /// What its tags start with; the version is that of the format.
    private static let prefix = "blkferry.replica=1"

    /// The tag; it has only characters that lvm(8) allows, and less than its 1024 of them.
    package var tag: String {
        [
            Self.prefix, "\(number)", target, mark, String(seed, radix: 16), root, snapshot,
        ].joined(separator: "/")
    }

    /// Reads a tag; `nil` for one that says something else.
    package init?(tag: String) {
        let parts = tag.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
        guard parts.count == 7, parts[0] == Self.prefix, let number = Int(parts[1]),
            let seed = UInt64(parts[4], radix: 16), parts[2...].allSatisfy({ !$0.isEmpty })
        else { return nil }
        self.number = number
        target = parts[2]
        mark = parts[3]
        self.seed = seed
        root = parts[5]
        snapshot = parts[6]
    }
}

extension LogicalVolume {
    /// What its tags say of a target.
    ///
    /// - Parameter target: as in the record.
    /// - Returns: the newest record; `nil` where the target is no replica of this volume, for all
    ///   that is known.
    package func replica(on target: String) -> ReplicaRecord? {
        let records = tags.compactMap { ReplicaRecord(tag: $0) }
        return records.filter { $0.target == target && $0.isOf(self) }
            .max { $0.number < $1.number }
    }
}
