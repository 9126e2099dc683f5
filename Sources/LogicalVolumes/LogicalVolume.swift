// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import DeviceProbe

/// A logical volume as lvs(8) reports it; sizes in bytes.
package struct LogicalVolume: Hashable, Sendable {
    /// Name of its volume group.
    package var group: String
    package var groupUUID: String
    package var name: String
    package var uuid: String
    /// Of its device; that of a classic snapshot is as large as the origin was.
    package var size: Int
    /// For a classic snapshot: how large its store is.
    package var storeSize: Int?
    /// `linear`, `striped`, `thin`, `thin-pool`, `raid1` and so on, of its first segment.
    package var segmentType: String
    /// Of its first segment: over how many disks data is spread; 1 where it is not.
    package var stripes: Int
    /// For a thin volume: the name of its pool.
    package var pool: String?
    /// For a snapshot: the name and the UUID of its origin.
    package var origin: String?
    package var originUUID: String?
    /// For a thin volume: its number in the pool.
    package var thinID: Int?
    /// For a thin pool: counts changes of its metadata; for a thin volume: that count when it was
    /// made.
    package var transaction: Int?
    package var tags: [String]
    /// For a classic snapshot: how much of its store is used, 0 to 100.
    package var snapshotPercent: Double?
    /// For a thin volume or pool: how much of it is allocated, 0 to 100.
    package var dataPercent: Double?
    /// Bytes of its group that belong to no volume.
    package var groupFree: Int
    /// Bytes.
    package var extentSize: Int
    /// The ten characters that lvs(8) describes as `lv_attr`.
    package var attributes: String
    /// Its device file in /dev/mapper, whether or not it is active.
    package var path: String

    /// How people name it: `vg0/root`.
    package var fullName: String { "\(group)/\(name)" }

    /// What tells it from all others.
    package var identity: VolumeIdentity { VolumeIdentity(groupUUID: groupUUID, uuid: uuid) }

    /// All that LVM itself calls it by.
    var names: [String] { [fullName, "/dev/\(fullName)", path] }

    package var isThin: Bool { segmentType == "thin" }
    package var isThinPool: Bool { segmentType == "thin-pool" }

    /// Whether nobody can write to it.
    package var isReadOnly: Bool { "rR".contains(attribute(2)) }

    /// Whether there is a device of it.
    package var isActive: Bool { attribute(5) != "-" }

    /// Whether somebody has its device open.
    package var isInUse: Bool { attribute(6) == "o" }

    /// A snapshot with a store of its own, which fills up as the origin changes.
    package var isClassicSnapshot: Bool { storeSize != nil }

    /// A classic snapshot whose store was too small: nothing of it can be read any more.
    package var isInvalid: Bool { "IS".contains(attribute(5)) && isClassicSnapshot }

    /// How full it is, 0 to 100: what is allocated of a thin volume or pool, what is used of a classic
    /// snapshot's store; `nil` for what cannot fill up.
    package var percent: Double? { snapshotPercent ?? dataPercent }

    /// Whether lvs(8) has it in brackets: it is a part of another volume, or of LVM itself.
    package var isPart: Bool

    /// A character of `lv_attr`, the first one being 1.
    private func attribute(_ number: Int) -> Character {
        let characters = Array(attributes)
        return number <= characters.count ? characters[number - 1] : "-"
    }
}

extension LogicalVolume: Decodable {
    private enum CodingKeys: String, CodingKey {
        case group = "vg_name"
        case groupUUID = "vg_uuid"
        case name = "lv_name"
        case uuid = "lv_uuid"
        case size = "lv_size"
        case originSize = "origin_size"
        case segmentType = "segtype"
        case stripes = "data_stripes"
        case pool = "pool_lv"
        case origin
        case originUUID = "origin_uuid"
        case thinID = "thin_id"
        case transaction = "transaction_id"
        case tags = "lv_tags"
        case snapshotPercent = "snap_percent"
        case dataPercent = "data_percent"
        case groupFree = "vg_free"
        case extentSize = "vg_extent_size"
        case attributes = "lv_attr"
        case path = "lv_dm_path"
    }

    /// What lvs(8) is asked for.
    static let fields = [
        CodingKeys.group, .groupUUID, .name, .uuid, .size, .originSize, .segmentType, .stripes,
        .pool,
        .origin, .originUUID, .thinID, .transaction, .tags, .snapshotPercent, .dataPercent,
        .groupFree, .extentSize, .attributes, .path,
    ].map(\.rawValue)

    /// Reads one volume of a report, in which every value is text.
    package init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        func text(_ key: CodingKeys) throws -> String? {
            let text = try values.decodeIfPresent(String.self, forKey: key) ?? ""
            return text.isEmpty ? nil : text
        }
        func number(_ key: CodingKeys) throws -> Int? { try text(key).flatMap { Int($0) } }
        /// A percentage has the decimal point of the user's locale, such as `75,39`.
        func percent(_ key: CodingKeys) throws -> Double? {
            try text(key).flatMap { text in
                Double(String(text.map { $0.isASCII && $0.isNumber ? $0 : "." }))
            }
        }
        func known<Value>(_ value: Value?, _ key: CodingKeys) throws -> Value {
            guard let value else {
                throw DecodingError.dataCorruptedError(
                    forKey: key, in: values, debugDescription: "missing")
            }
            return value
        }
        /// Volumes that only LVM uses are in brackets.
        func name(_ key: CodingKeys) throws -> String? {
            try text(key)?.filter { $0 != "[" && $0 != "]" }
        }
        group = try known(text(.group), .group)
        groupUUID = try known(text(.groupUUID), .groupUUID)
        self.name = try known(name(.name), .name)
        isPart = try text(.name)?.hasPrefix("[") ?? false
        uuid = try known(text(.uuid), .uuid)
        let ownSize = try known(number(.size), .size)
        attributes = try known(text(.attributes), .attributes)
        // The first of lv_attr: s, or S while it is merged into its origin.
        if attributes.hasPrefix("s") || attributes.hasPrefix("S") {
            size = try known(number(.originSize), .originSize)
            storeSize = ownSize
        } else {
            size = ownSize
        }
        segmentType = try text(.segmentType) ?? ""
        stripes = max(1, try number(.stripes) ?? 1)
        pool = try name(.pool)
        origin = try name(.origin)
        originUUID = try text(.originUUID)
        thinID = try number(.thinID)
        transaction = try number(.transaction)
        tags = try text(.tags)?.split(separator: ",").map(String.init) ?? []
        snapshotPercent = try percent(.snapshotPercent)
        dataPercent = try percent(.dataPercent)
        groupFree = try known(number(.groupFree), .groupFree)
        extentSize = try known(number(.extentSize), .extentSize)
        path = try known(text(.path), .path)
    }
}
