// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

/// A logical volume as lvs(8) reports it; sizes in bytes.
package struct LogicalVolume: Hashable, Sendable {
    package var group: String
    package var groupUUID: String
    package var name: String
    package var uuid: String
    /// Bytes of the volume's device; the device of a classic snapshot has the origin's size at the
    /// time of the snapshot.
    package var size: Int
    /// Bytes of a classic snapshot's store; `nil` for any other volume.
    package var storeSize: Int?
    /// Type of the first segment: `linear`, `striped`, `thin`, `thin-pool`, `raid1` and so on.
    package var segmentType: String
    /// Number of disks over which the first segment spreads its data; 1 if it is not striped.
    package var stripes: Int
    package var pool: String?
    package var origin: String?
    package var originUUID: String?
    /// A thin volume's device id in its pool.
    package var thinID: Int?
    /// A thin pool's count of metadata changes; a thin volume has the pool's count from when the
    /// volume was made.
    package var transaction: Int?
    package var tags: [String]
    /// Used part of a classic snapshot's store, 0 to 100.
    package var snapshotPercent: Double?
    /// Allocated part of a thin volume or pool, 0 to 100.
    package var dataPercent: Double?
    /// Bytes that a thin snapshot of this run had mapped when it was made; `nil` if the device
    /// mapper did not report them.
    package var mappedWhenMade: Int?
    /// Bytes of the group that no volume uses.
    package var groupFree: Int
    package var extentSize: Int
    /// The ten characters of `lv_attr`, see lvs(8).
    package var attributes: String
    /// The path of the device file in /dev/mapper, even if the volume is not active.
    package var path: String

    /// The name for users: `vg0/root`.
    package var fullName: String { "\(group)/\(name)" }

    /// The name in /dev/mapper, even if the volume is not active.
    var mapperName: String { VolumeName(group: group, volume: name).mapperName }

    package var identity: VolumeIdentity { VolumeIdentity(groupUUID: groupUUID, uuid: uuid) }

    var names: [String] { [fullName, "/dev/\(fullName)", path] }

    package var isThin: Bool { segmentType == "thin" }
    package var isThinPool: Bool { segmentType == "thin-pool" }

    package var isReadOnly: Bool { "rR".contains(attribute(2)) }

    package var isActive: Bool { attribute(5) != "-" }

    package var isInUse: Bool { attribute(6) == "o" }

    /// Whether the volume is a snapshot with a store of its own, which fills up as the origin
    /// changes.
    package var isClassicSnapshot: Bool { storeSize != nil }

    /// Whether the volume is a classic snapshot whose store overflowed; its content is lost.
    package var isInvalid: Bool { "IS".contains(attribute(5)) && isClassicSnapshot }

    /// Fill level, 0 to 100: the allocated part of a thin volume or pool, or the used part of a
    /// classic snapshot's store; `nil` for a volume that cannot fill up.
    package var percent: Double? { snapshotPercent ?? dataPercent }

    /// Whether lvs(8) prints the name in brackets: the volume is a part of another volume, or
    /// internal to LVM.
    package var isPart: Bool

    /// Returns a character of `lv_attr`; the first one is number 1.
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

    static let fields = [
        CodingKeys.group, .groupUUID, .name, .uuid, .size, .originSize, .segmentType, .stripes,
        .pool,
        .origin, .originUUID, .thinID, .transaction, .tags, .snapshotPercent, .dataPercent,
        .groupFree, .extentSize, .attributes, .path,
    ].map(\.rawValue)

    /// Removes the brackets that mark the name of a volume internal to LVM.
    static func withoutBrackets(_ name: String) -> String { name.filter { $0 != "[" && $0 != "]" } }

    /// Reads one volume of a report, in which every value is text.
    package init(from decoder: any Decoder) throws {
        let values = try decoder.container(keyedBy: CodingKeys.self)
        func text(_ key: CodingKeys) throws -> String? {
            let text = try values.decodeIfPresent(String.self, forKey: key) ?? ""
            return text.isEmpty ? nil : text
        }
        func number(_ key: CodingKeys) throws -> Int? { try text(key).flatMap { Int($0) } }
        /// Reads bytes; the limit leaves room to round up to an extent, which has at most a quarter
        /// of what an `Int` holds.
        func bytes(_ key: CodingKeys) throws -> Int? {
            try number(key).flatMap { (0...Int.max / 4).contains($0) ? $0 : nil }
        }
        /// Reads a percentage, whose decimal separator depends on the user's locale (`75,39`).
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
        func name(_ key: CodingKeys) throws -> String? {
            try text(key).map(Self.withoutBrackets)
        }
        group = try known(text(.group), .group)
        groupUUID = try known(text(.groupUUID), .groupUUID)
        self.name = try known(name(.name), .name)
        isPart = try text(.name)?.hasPrefix("[") ?? false
        uuid = try known(text(.uuid), .uuid)
        let ownSize = try known(bytes(.size), .size)
        attributes = try known(text(.attributes), .attributes)
        // lv_attr starts with `s` for a snapshot, and with `S` while LVM merges it into its origin.
        if attributes.hasPrefix("s") || attributes.hasPrefix("S") {
            size = try known(bytes(.originSize), .originSize)
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
        groupFree = try known(bytes(.groupFree), .groupFree)
        extentSize = try known(bytes(.extentSize).flatMap { $0 > 0 ? $0 : nil }, .extentSize)
        path = try known(text(.path), .path)
    }
}
