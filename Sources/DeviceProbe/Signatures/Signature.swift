// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices

/// One signature on a device, found by libblkid, or the format of a file.
package struct Signature: Hashable, Sendable {
    /// libblkid's USAGE; libblkid reports the partition table separately.
    package enum Usage: String, Sendable {
        case filesystem
        case raid
        case crypto
        /// Also the format of a file; see `FileFormat`.
        case other
        case partitionTable = "partition-table"
    }

    package var usage: Usage
    /// libblkid's name (`ext4`, `swap`, `LVM2_member`, `gpt`, `dos`), or the name of a
    /// `FileFormat`.
    package var type: String
    package var uuid: String?
    /// Distinguishes the members of one file system or array (`UUID_SUB`).
    package var subUUID: String?
    package var label: String?
    package var partitions: [Partition]
    /// The logical sector that a partition table counts in, in bytes.
    package var sectorSize: Int
    /// Places of its magic numbers, in bytes from the start of the device, ascending; empty if
    /// unknown.
    ///
    /// The first place is part of the identity: a signature elsewhere belongs to other content.
    package var places: [Int]
    /// Bytes of one magic number; `nil` if unknown.
    package var magicLength: Int?
    /// Digest of the superblock, if no identifier can prove a copy.
    package var fingerprint: String?
    /// Whether it lies in a partition of the device, and belongs to that partition.
    package var isInPartition = false

    package init(
        usage: Usage, type: String, uuid: String? = nil, subUUID: String? = nil,
        label: String? = nil, partitions: [Partition] = [], sectorSize: Int = 512,
        places: [Int] = [], magicLength: Int? = nil, fingerprint: String? = nil
    ) {
        self.usage = usage
        self.type = type
        self.uuid = uuid
        self.subUUID = subUUID
        self.label = label
        self.partitions = partitions
        self.sectorSize = sectorSize
        self.places = places
        self.magicLength = magicLength
        self.fingerprint = fingerprint
    }

    /// Whether it is the backup of a GPT whose primary header is missing or belongs to another GPT.
    package var isBackupTable: Bool { type == "gpt" && (places.first ?? 0) > 4096 }
}

// MARK: - Identity

extension Signature {
    /// Whether both are copies of one original.
    ///
    /// They have the same kind and place, and the same identifier, or without identifiers the same
    /// superblock. Places count only if both are known, since older versions do not send them.
    package func isCopy(of other: Signature) -> Bool {
        guard usage == other.usage, family == other.family, isAtPlace(of: other) else {
            return false
        }
        if hasOwnIdentifier, other.hasOwnIdentifier {
            return Self.isSame(uuid, other.uuid) && Self.isSame(subUUID, other.subUUID)
        }
        guard let fingerprint else { return false }
        return fingerprint == other.fingerprint
    }

    private static func isSame(_ one: String?, _ other: String?) -> Bool {
        one?.lowercased() == other?.lowercased()
    }

    private func isAtPlace(of other: Signature) -> Bool {
        guard let place, let theirs = other.place else { return true }
        return place == theirs
    }

    /// The place that is compared, in bytes.
    ///
    /// ZFS adds an uberblock to its label with each transaction, so the label's place counts there.
    private var place: Int? {
        places.first.map { type == "zfs_member" ? $0 / Self.zfsLabel * Self.zfsLabel : $0 }
    }

    /// Bytes of a ZFS label (`VDEV_LABEL` in `sys/vdev_impl.h`).
    static let zfsLabel = 256 << 10

    /// The name under which types count as one.
    ///
    /// `tune2fs -O extents` makes ext3 ext4, hibernation makes swap space `swsuspend`.
    private var family: String {
        switch type {
        case "ext2", "ext3", "ext4", "ext4dev": "ext"
        case "swap", "swsuspend": "swap"
        default: type
        }
    }

    /// Whether its identifiers distinguish it from everything else, including other members of its
    /// array.
    var hasOwnIdentifier: Bool {
        guard uuid != nil else { return false }
        return !isMember || subUUID != nil
    }

    /// Whether several devices share the UUID, because it is an array's, a pool's or a file
    /// system's.
    private var isMember: Bool {
        switch type {
        // A physical volume, a DRBD device and a VDO volume have a UUID of their own.
        case "LVM1_member", "LVM2_member", "drbd", "vdo": false
        case "btrfs", "bcachefs", "zfs_member": true
        default: usage == .raid
        }
    }
}

extension [Signature] {
    /// Adds a signature, or a place to a known one, and returns whether the place is new.
    mutating func addPlace(of next: Signature) -> Bool {
        // The rest of a GPT whose headers have been hidden.
        if next.type == "PMBR", contains(where: { $0.type == "gpt" }) { return false }
        let known = firstIndex {
            $0.usage == next.usage && $0.type == next.type && $0.uuid == next.uuid
                && $0.subUUID == next.subUUID && $0.label == next.label
                // Without identifiers, superblocks at different places are different signatures.
                && ($0.uuid != nil || $0.places == next.places)
        }
        guard let known else {
            append(next)
            return true
        }
        let new = next.places.filter { !self[known].places.contains($0) }
        self[known].places = (self[known].places + new).sorted()
        return !new.isEmpty
    }
}

// MARK: - Partitions and words

/// An entry of a partition table.
package struct Partition: Hashable, Sendable {
    package var number: Int
    package var range: ByteRange
    /// A GUID in GPT, `0x83` in DOS tables.
    package var type: String
    /// Only GPT has names.
    package var name: String?
    package var uuid: String?
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

extension Signature: CustomStringConvertible {
    package var description: String {
        if let format = FileFormat.named(type) { return format.phrase }
        var words = [usage == .partitionTable ? "\(type) partition table" : type]
        if isBackupTable { words.insert("backup", at: 0) }
        if let label { words.append(quoted(label)) }
        if let uuid { words.append("UUID=\(uuid)") }
        if let subUUID { words.append("UUID_SUB=\(subUUID)") }
        guard usage == .partitionTable, !isBackupTable || !partitions.isEmpty else {
            return words.joined(separator: " ")
        }
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
