// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
package import DeviceProbe

/// What is on a device, on the wire.
package struct ContentRecord: Codable, Hashable, Sendable {
    package enum State: String, Codable, Hashable, Sendable {
        case empty
        case signatures
        case ambiguous
        case unreadable
    }

    package var state: State
    package var signatures: [SignatureRecord]?
    package var reason: String?

    package init(_ content: Content) {
        switch content {
        case .empty: state = .empty
        case .signatures(let found):
            state = .signatures
            signatures = found.map { SignatureRecord($0) }
        case .ambiguous(let found):
            state = .ambiguous
            signatures = found.map { SignatureRecord($0) }
        case .unreadable(let why):
            state = .unreadable
            reason = why
        }
    }

    /// - Throws: when it contradicts itself.
    package func content() throws(WireError) -> Content {
        var found: [Signature] = []
        for signature in signatures ?? [] { found.append(try signature.signature()) }
        switch state {
        case .empty: return .empty
        case .unreadable: return .unreadable(String((reason ?? "no reason given").prefix(256)))
        case .signatures where !found.isEmpty: return .signatures(found)
        case .ambiguous where !found.isEmpty: return .ambiguous(found)
        case .signatures, .ambiguous: throw WireError("content: there are no signatures")
        }
    }
}

/// One thing that libblkid has found.
package struct SignatureRecord: Codable, Hashable, Sendable {
    package var usage: String
    package var type: String
    package var uuid: String?
    package var subUUID: String?
    package var label: String?
    package var sectorSize: Int?
    package var partitions: [PartitionRecord]?

    init(_ signature: Signature) {
        usage = signature.usage.rawValue
        type = signature.type
        uuid = signature.uuid
        subUUID = signature.subUUID
        label = signature.label
        guard signature.usage == .partitionTable else { return }
        sectorSize = signature.sectorSize
        partitions = signature.partitions.map { PartitionRecord($0) }
    }

    func signature() throws(WireError) -> Signature {
        guard let usage = Signature.Usage(rawValue: usage) else {
            throw WireError("content: usage \(usage.prefix(64).debugDescription) is unknown")
        }
        var parts: [Partition] = []
        for partition in partitions ?? [] { parts.append(try partition.partition()) }
        return Signature(
            usage: usage, type: type, uuid: uuid, subUUID: subUUID, label: label,
            partitions: parts, sectorSize: sectorSize ?? 512)
    }
}

/// An entry of a partition table; offset and length in bytes.
package struct PartitionRecord: Codable, Hashable, Sendable {
    package var number: Int
    package var offset: Int
    package var length: Int
    package var type: String
    package var name: String?
    package var uuid: String?

    init(_ partition: Partition) {
        number = partition.number
        offset = partition.range.offset
        length = partition.range.length
        type = partition.type
        name = partition.name
        uuid = partition.uuid
    }

    func partition() throws(WireError) -> Partition {
        guard offset >= 0, length >= 0, !offset.addingReportingOverflow(length).overflow else {
            throw WireError("content: partition \(number) is nowhere")
        }
        return Partition(
            number: number, range: ByteRange(offset: offset, length: length), type: type,
            name: name, uuid: uuid)
    }
}
