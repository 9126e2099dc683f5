// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import DeviceProbe
internal import LogicalVolumes
internal import WireProtocol

/// The devices of a machine as a person reads them: a line each, columns as wide as they must be.
struct DeviceTable {
    private let entries: [InventoryEntry]
    private let volumes: [VolumeIdentity: LogicalVolume]

    /// - Parameters:
    ///   - entries: the devices.
    ///   - volumes: what LVM says of them.
    init(_ entries: [InventoryEntry], _ volumes: [VolumeIdentity: LogicalVolume] = [:]) {
        self.entries = entries
        self.volumes = volumes
    }

    private static let heading = [
        "DEVICE", "SIZE", "SECTOR", "TYPE", "LABEL", "UUID", "PARTUUID", "LVUUID", "VG", "LV",
        "POOL", "ORIGIN", "FULL", "IN USE BY",
    ]

    var text: String {
        columns(under: Self.heading, entries.map { row($0) })
    }

    private func row(_ entry: InventoryEntry) -> [String] {
        let found = entry.content?.found ?? []
        // What is not known is not nothing.
        let types = entry.unreadable == nil ? found.map(\.type).joined(separator: ",") : "?"
        let main = found.first { $0.usage != .partitionTable }
        return [
            entry.path, Wording.bytes(entry.size), "\(entry.logicalSector)", types,
            printable(main?.label ?? entry.partLabel ?? ""), main?.uuid ?? "",
            entry.partUUID ?? "", entry.lvUUID ?? "",
        ] + cells(entry.volumeIdentity.flatMap { volumes[$0] }) + [
            (entry.inUseBy + (entry.isReadOnly ? ["read-only"] : [])).joined(separator: ", ")
        ]
    }

    /// What LVM says of a volume.
    private func cells(_ volume: LogicalVolume?) -> [String] {
        guard let volume else { return [String](repeating: "", count: 5) }
        let full = volume.isInvalid ? "invalid" : volume.percent.map { "\(Wording.fixed($0, 2)) %" }
        return [
            volume.group, volume.name, volume.pool ?? "", volume.origin ?? "", full ?? "",
        ]
    }
}

/// The exports of a server as a person reads them.
struct ExportTableText {
    private let list: ExportList

    init(_ list: ExportList) { self.list = list }

    private static let heading = [
        "ID", "PATH", "SIZE", "SECTOR", "ACCESS", "TYPE", "LABEL", "UUID", "IN USE BY",
    ]

    var text: String {
        let directories = list.directories.map { directory in
            [
                "", printable(directory.path), "", "", directory.access.rawValue, "directory", "",
                "", "",
            ]
        }
        return columns(under: Self.heading, list.devices.map { row($0) } + directories)
    }

    private func row(_ export: ExportRecord) -> [String] {
        let found = export.content.signatures ?? []
        let types = export.unreadable == nil ? found.map(\.type).joined(separator: ",") : "?"
        let main = found.first { $0.usage != Signature.Usage.partitionTable.rawValue }
        return [
            printable(export.id), printable(export.path), Wording.bytes(export.size),
            "\(export.logicalSector)", export.access.rawValue, printable(types),
            printable(main?.label ?? ""), printable(main?.uuid ?? ""),
            printable(export.inUseBy.joined(separator: ", ")),
        ]
    }
}

/// Lines of cells, each column as wide as it must be; one that is empty in every row is left out.
private func columns(under heading: [String], _ body: [[String]]) -> String {
    let rows = [heading] + body
    let widths = heading.indices.map { column in rows.map { $0[column].count }.max() ?? 0 }
    let shown = heading.indices.filter { column in body.contains { !$0[column].isEmpty } }
    return rows.map { row in
        let cells = shown.map { column in
            row[column] + String(repeating: " ", count: widths[column] - row[column].count)
        }
        let line = cells.joined(separator: "  ")
        return String(line.reversed().drop { $0 == " " }.reversed())
    }.joined(separator: "\n")
}

/// What `list --json` prints; sizes in bytes.
struct DeviceList: Encodable {
    var devices: [DeviceRecord]
}

/// One device of `list --json`.
struct DeviceRecord: Encodable {
    private var path: String
    private var size: Int
    private var logicalSector: Int
    private var readOnly: Bool
    private var signatures: [SignatureRecord]
    private var ambiguous: Bool
    private var partUUID: String?
    private var partLabel: String?
    private var lvUUID: String?
    private var volume: VolumeRecord?
    private var inUseBy: [String]
    private var unreadable: String?

    private struct SignatureRecord: Encodable {
        var usage: String
        var type: String
        var uuid: String?
        var subUUID: String?
        var label: String?
        var partitions: [PartitionRecord]?

        init(_ signature: Signature) {
            usage = signature.usage.rawValue
            type = signature.type
            uuid = signature.uuid
            subUUID = signature.subUUID
            label = signature.label
            partitions =
                signature.usage == .partitionTable
                ? signature.partitions.map { PartitionRecord($0) } : nil
        }
    }

    private struct PartitionRecord: Encodable {
        var number: Int
        var offset: Int
        var length: Int
        var type: String
        var name: String?
        var uuid: String?

        init(_ partition: Partition) {
            number = partition.number
            offset = partition.range.offset
            length = partition.range.length
            type = partition.type
            name = partition.name
            uuid = partition.uuid
        }
    }

    /// What LVM says of a logical volume.
    private struct VolumeRecord: Encodable {
        var group: String
        var name: String
        var type: String
        var pool: String?
        var origin: String?
        /// Of a thin volume what is allocated, of a classic snapshot what of its store is used.
        var percent: Double?
        var invalid: Bool
        var tags: [String]

        init(_ volume: LogicalVolume) {
            group = volume.group
            name = volume.name
            type = volume.segmentType
            pool = volume.pool
            origin = volume.origin
            percent = volume.isInvalid ? nil : volume.percent
            invalid = volume.isInvalid
            tags = volume.tags
        }
    }

    init(_ entry: InventoryEntry, _ volume: LogicalVolume?) {
        path = entry.path
        self.volume = volume.map { VolumeRecord($0) }
        size = entry.size
        logicalSector = entry.logicalSector
        readOnly = entry.isReadOnly
        signatures = (entry.content?.found ?? []).map { SignatureRecord($0) }
        if case .some(.ambiguous) = entry.content { ambiguous = true } else { ambiguous = false }
        partUUID = entry.partUUID
        partLabel = entry.partLabel
        lvUUID = entry.lvUUID
        inUseBy = entry.inUseBy
        unreadable = entry.unreadable
    }
}
