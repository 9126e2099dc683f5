// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import DeviceProbe
internal import LinuxIO
internal import LogicalVolumes
internal import WireProtocol

/// The devices of a machine as a table for people; the columns are as wide as their cells.
struct DeviceTable {
    private let volumes: [VolumeIdentity: LogicalVolume]
    private let columns: Columns

    /// - Parameter isComplete: whether all devices have answered. If not, columns get room for
    ///   later answers.
    init(
        _ entries: [InventoryEntry], _ volumes: [VolumeIdentity: LogicalVolume] = [:],
        isComplete: Bool = true
    ) {
        self.volumes = volumes
        let rows = entries.map { Self.row($0, volumes) }
        columns = Columns(Self.heading, rows, room: isComplete ? [:] : Self.room)
    }

    private static let heading = [
        "DEVICE", "SIZE", "SECTOR", "TYPE", "LABEL", "UUID", "PARTUUID", "LVUUID", "VG", "LV",
        "POOL", "ORIGIN", "FULL", "IN USE BY",
    ]

    /// Minimum widths of columns that need a device's answer; most values fit.
    private static let room = ["TYPE": 8, "LABEL": 12, "UUID": 36, "IN USE BY": 9]

    var heading: String { columns.line(Self.heading) }

    func line(_ entry: InventoryEntry) -> String { columns.line(Self.row(entry, volumes)) }

    private static func row(
        _ entry: InventoryEntry, _ volumes: [VolumeIdentity: LogicalVolume]
    ) -> [String] {
        let found = entry.content?.found ?? []
        // An unknown part must not look like an empty one.
        let known: [String] = found.map(\.type) + (entry.unreadable == nil ? [] : ["?"])
        var types = distinct(known)
        if case .some(.ambiguous) = entry.content { types += " (ambiguous)" }
        let others = found.filter { $0.usage != .partitionTable }
        return [
            entry.path, Format.bytes(entry.size), "\(entry.logicalSector)", types,
            distinct(others.map(\.label), else: entry.partLabel), distinct(others.map(\.uuid)),
            entry.partUUID ?? "", entry.lvUUID ?? "",
        ] + cells(entry.volumeIdentity.flatMap { volumes[$0] }) + [
            notes(entry).joined(separator: ", ")
        ]
    }

    private static func notes(_ entry: InventoryEntry) -> [String] {
        entry.inUseBy + (entry.isReadOnly ? ["read-only"] : [])
            + (entry.isLate ? [InventoryEntry.noAnswer] : [])
    }

    private static func cells(_ volume: LogicalVolume?) -> [String] {
        guard let volume else { return [String](repeating: "", count: 5) }
        let full = volume.isInvalid ? "invalid" : volume.percent.map { "\(Format.fixed($0, 2)) %" }
        return [
            volume.group, volume.name, volume.pool ?? "", volume.origin ?? "", full ?? "",
        ]
    }
}

/// The exports of a server as a table for people.
struct ExportTableText {
    private let list: ExportList

    init(_ list: ExportList) { self.list = list }

    private static let heading = [
        "ID", "PATH", "SIZE", "SECTOR", "ACCESS", "TYPE", "LABEL", "UUID", "IN USE BY",
    ]

    private func notes(_ export: ExportRecord) -> [String] {
        export.unreadable == InventoryEntry.noAnswer ? [InventoryEntry.noAnswer] : []
    }

    var text: String {
        let directories = list.directories.map { directory in
            [
                "", printable(directory.path), "", "", directory.access.rawValue, "directory", "",
                "", "",
            ]
        }
        let rows = list.devices.map { row($0) } + directories
        let columns = Columns(Self.heading, rows)
        return ([Self.heading] + rows).map { columns.line($0) }.joined(separator: "\n")
    }

    private func row(_ export: ExportRecord) -> [String] {
        let found = export.content.signatures ?? []
        let known: [String] = found.map(\.type) + (export.unreadable == nil ? [] : ["?"])
        var types = distinct(known)
        if export.content.state == .ambiguous { types += " (ambiguous)" }
        let others = found.filter { $0.usage != Signature.Usage.partitionTable.rawValue }
        return [
            printable(export.id), printable(export.path), Format.bytes(export.size),
            "\(export.logicalSector)", export.access.rawValue, types,
            distinct(others.map(\.label)), distinct(others.map(\.uuid)),
            printable((export.inUseBy + notes(export)).joined(separator: ", ")),
        ]
    }
}

/// Joins the distinct values of several signatures; `other` if they have none.
private func distinct(_ values: [String?], else other: String? = nil) -> String {
    var known: [String] = []
    for value in values {
        if let value, !known.contains(where: { $0.isSame(as: value) }) { known.append(value) }
    }
    if known.isEmpty, let other { known = [other] }
    return printable(known.joined(separator: ","))
}

/// Rows of cells, each column as wide as its widest cell; columns without any value are left out.
struct Columns {
    private let widths: [Int]
    private let shown: [Int]

    /// - Parameter room: minimum widths by heading; such a column is always shown.
    init(_ heading: [String], _ rows: [[String]], room: [String: Int] = [:]) {
        widths = heading.indices.map { column in
            let cells = ([heading] + rows).map { $0[column].count }
            return max(cells.max() ?? 0, room[heading[column]] ?? 0)
        }
        shown = heading.indices.filter { column in
            room[heading[column]] != nil || rows.contains { !$0[column].isEmpty }
        }
    }

    func line(_ row: [String]) -> String {
        let cells = shown.map { column in
            let cell = row[column]
            return cell + String(repeating: " ", count: max(0, widths[column] - cell.count))
        }
        return String(cells.joined(separator: "  ").reversed().drop { $0 == " " }.reversed())
    }
}

/// The output of `list --json`; sizes in bytes.
struct DeviceList: Encodable {
    var devices: [DeviceRecord]
}

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

    private struct VolumeRecord: Encodable {
        var group: String
        var name: String
        var type: String
        var pool: String?
        var origin: String?
        /// Allocated part of a thin volume, or used part of a classic snapshot's store.
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
