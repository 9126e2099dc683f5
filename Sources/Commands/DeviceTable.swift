// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import DeviceProbe

/// The devices of a machine as a person reads them: a line each, columns as wide as they must be.
struct DeviceTable {
    private let entries: [InventoryEntry]

    init(_ entries: [InventoryEntry]) { self.entries = entries }

    private static let heading = [
        "DEVICE", "SIZE", "SECTOR", "TYPE", "LABEL", "UUID", "PARTUUID", "LVUUID", "IN USE BY",
    ]

    var text: String {
        let rows = [Self.heading] + entries.map { row($0) }
        let widths = Self.heading.indices.map { column in
            rows.map { $0[column].count }.max() ?? 0
        }
        // A column that is empty in every row only takes space.
        let shown = Self.heading.indices.filter { column in
            rows.dropFirst().contains { !$0[column].isEmpty }
        }
        return rows.map { row in
            let cells = shown.map { column in
                row[column] + String(repeating: " ", count: widths[column] - row[column].count)
            }
            let line = cells.joined(separator: "  ")
            return String(line.reversed().drop { $0 == " " }.reversed())
        }.joined(separator: "\n")
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
            (entry.inUseBy + (entry.isReadOnly ? ["read-only"] : [])).joined(separator: ", "),
        ]
    }
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

    init(_ entry: InventoryEntry) {
        path = entry.path
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
