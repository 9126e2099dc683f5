// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices

/// What libblkid finds on a device.
package struct Signature: Hashable, Sendable {
    /// libblkid's USAGE, and the partition table, which it reports apart from that.
    package enum Usage: String, Sendable {
        case filesystem
        case raid
        case crypto
        case other
        case partitionTable = "partition-table"
    }

    package var usage: Usage
    /// libblkid's name: `ext4`, `swap`, `LVM2_member`, `gpt`, `dos`.
    package var type: String
    package var uuid: String?
    /// What tells the members of one file system or array apart (`UUID_SUB`).
    package var subUUID: String?
    package var label: String?
    /// Of a partition table.
    package var partitions: [Partition]
    /// For a partition table: the logical sector, in bytes, that its numbers count in.
    package var sectorSize: Int

    package init(
        usage: Usage, type: String, uuid: String? = nil, subUUID: String? = nil,
        label: String? = nil, partitions: [Partition] = [], sectorSize: Int = 512
    ) {
        self.usage = usage
        self.type = type
        self.uuid = uuid
        self.subUUID = subUUID
        self.label = label
        self.partitions = partitions
        self.sectorSize = sectorSize
    }

    /// Whether the two are copies of one original.
    ///
    /// Members of one md array or btrfs share the UUID and differ in `UUID_SUB`. Without a UUID
    /// nothing is proved.
    package func isCopy(of other: Signature) -> Bool {
        guard usage == other.usage, type == other.type, let uuid, let theirs = other.uuid else {
            return false
        }
        return uuid.lowercased() == theirs.lowercased()
            && subUUID?.lowercased() == other.subUUID?.lowercased()
    }
}

/// An entry of a partition table.
package struct Partition: Hashable, Sendable {
    package var number: Int
    package var range: ByteRange
    /// A GUID in GPT, `0x83` in DOS tables.
    package var type: String
    /// Only GPT has names.
    package var name: String?
    package var uuid: String?
    /// What is in it, where that was asked for.
    package var contentType: String?
    package var contentLabel: String?

    package init(
        number: Int, range: ByteRange, type: String, name: String? = nil, uuid: String? = nil,
        contentType: String? = nil, contentLabel: String? = nil
    ) {
        self.number = number
        self.range = range
        self.type = type
        self.name = name
        self.uuid = uuid
        self.contentType = contentType
        self.contentLabel = contentLabel
    }
}

/// What is on a device.
package enum Content: Hashable, Sendable {
    /// Nothing that libblkid knows.
    case empty
    /// Mostly one; a partition table comes first. More than one is on a hybrid ISO image, which is
    /// a file system and a disk.
    case signatures([Signature])
    /// Several that cannot be there at once: what is left of an earlier use contradicts the rest.
    case ambiguous([Signature])
    /// It cannot be told, for a reason.
    case unreadable(String)

    /// What was found, whatever it proves.
    package var found: [Signature] {
        switch self {
        case .empty, .unreadable: []
        case .signatures(let found), .ambiguous(let found): found
        }
    }

    /// The one that says what the device is; `nil` when that is unclear.
    package var main: Signature? {
        if case .signatures(let found) = self { found.first } else { nil }
    }

    package var partitionTable: Signature? { found.first { $0.usage == .partitionTable } }

    /// Whether nothing would be lost if this became a replica of the other: each thing on it is on
    /// the other as well.
    package func isReplica(of source: Content) -> Bool {
        guard case .signatures(let mine) = self, case .signatures(let theirs) = source else {
            return false
        }
        return mine.allSatisfy { signature in theirs.contains { signature.isCopy(of: $0) } }
    }
}

extension Signature: CustomStringConvertible {
    /// Type, label, UUID, and the partitions with what is in them; on one line.
    package var description: String {
        var words = [usage == .partitionTable ? "\(type) partition table" : type]
        if let label { words.append(quoted(label)) }
        if let uuid { words.append("UUID=\(uuid)") }
        if let subUUID { words.append("UUID_SUB=\(subUUID)") }
        guard usage == .partitionTable else { return words.joined(separator: " ") }
        let shown = partitions.prefix(8).map(\.description).joined(separator: ", ")
        let more = partitions.count > 8 ? " and \(partitions.count - 8) more" : ""
        let list = partitions.isEmpty ? "no partitions" : "partitions \(shown)\(more)"
        return "\(words.joined(separator: " ")) with \(list)"
    }
}

extension Partition: CustomStringConvertible {
    package var description: String {
        let label = contentLabel.map(quoted) ?? name.map(quoted)
        return (["\(number)"] + [contentType, label].compactMap { $0 }).joined(separator: " ")
    }
}

extension Content: CustomStringConvertible {
    package var description: String {
        switch self {
        case .empty: "nothing"
        case .signatures(let found): found.map(\.description).joined(separator: "; ")
        case .ambiguous(let found):
            "contradictory signatures: " + found.map(\.description).joined(separator: "; ")
        case .unreadable(let reason): "unknown content (\(reason))"
        }
    }
}
