// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
package import DeviceProbe

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
    /// The ranges that could not be read; only with `unreadable` and signatures.
    package var missing: [RangeRecord]?

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
        case .partial(let partial):
            // A client that does not know partial content treats it as unreadable.
            state = .unreadable
            signatures = partial.found.map { SignatureRecord($0) }
            missing = partial.missing.map { RangeRecord($0) }
            reason = partial.reason
        }
    }

    /// More than any device has.
    private static let mostSignatures = 1024

    /// All texts of the signatures.
    var signatureTexts: [String?] {
        var texts: [String?] = []
        for signature in signatures ?? [] {
            texts += [signature.type, signature.uuid, signature.subUUID, signature.label]
            texts.append(signature.fingerprint)
            for partition in signature.partitions ?? [] {
                texts += [partition.type, partition.name, partition.uuid]
            }
        }
        return texts
    }

    /// Removes the partitions of tables with more than `room` partitions, and subtracts the others
    /// from `room`.
    package mutating func limitPartitions(to room: inout Int) {
        for index in signatures?.indices ?? 0..<0 {
            let count = signatures?[index].partitions?.count ?? 0
            if count > room { signatures?[index].partitions = nil } else { room -= count }
        }
    }

    /// Throws if the record contradicts itself.
    package func content() throws(WireError) -> Content {
        guard signatures?.count ?? 0 <= Self.mostSignatures else {
            throw WireError("content: \(signatures?.count ?? 0) signatures")
        }
        var found: [Signature] = []
        for signature in signatures ?? [] { found.append(try signature.signature()) }
        switch state {
        case .empty: return .empty
        case .unreadable:
            let reason = String((reason ?? "no reason given").prefix(256)).shortened
            guard !found.isEmpty, let missing else { return .unreadable(reason) }
            var ranges: [ByteRange] = []
            for range in missing { ranges.append(try range.range()) }
            return .partial(.init(found, missing: ranges, reason: reason))
        case .signatures where !found.isEmpty: return .signatures(found)
        case .ambiguous where !found.isEmpty: return .ambiguous(found)
        case .signatures, .ambiguous: throw WireError("content: there are no signatures")
        }
    }
}

package struct RangeRecord: Codable, Hashable, Sendable {
    package var offset: Int
    package var length: Int

    init(_ range: ByteRange) {
        offset = range.offset
        length = range.length
    }

    func range() throws(WireError) -> ByteRange {
        guard offset >= 0, length >= 0, !offset.addingReportingOverflow(length).overflow else {
            throw WireError("content: a range is nowhere")
        }
        return ByteRange(offset: offset, length: length)
    }
}

package struct SignatureRecord: Codable, Hashable, Sendable {
    package var usage: String
    package var type: String
    package var uuid: String?
    package var subUUID: String?
    package var label: String?
    /// The offset of its first magic number, in bytes.
    package var offset: Int?
    /// The digest of its superblock, if it has no identifier that proves a copy.
    package var fingerprint: String?
    package var sectorSize: Int?
    package var partitions: [PartitionRecord]?

    init(_ signature: Signature) {
        usage = signature.usage.rawValue
        type = signature.type
        uuid = signature.uuid
        subUUID = signature.subUUID
        label = signature.label
        offset = signature.places.first
        fingerprint = signature.fingerprint
        guard signature.usage == .partitionTable else { return }
        sectorSize = signature.sectorSize
        partitions = signature.partitions.map { PartitionRecord($0) }
    }

    func signature() throws(WireError) -> Signature {
        guard let usage = Signature.Usage(rawValue: usage) else {
            throw WireError("content: usage \(usage.prefix(64).debugDescription) is unknown")
        }
        guard Geometry.isLogicalSector(sectorSize ?? 512) else {
            throw WireError("content: the sector size is \(sectorSize ?? 0)")
        }
        guard offset ?? 0 >= 0 else {
            throw WireError("content: a signature at \(offset ?? 0) is nowhere")
        }
        // A server may list an image that is larger than any device.
        let places = [offset].compactMap(\.self).filter { $0 <= Geometry.maximumSize }
        var parts: [Partition] = []
        for partition in partitions ?? [] { parts.append(try partition.partition()) }
        return Signature(
            usage: usage, type: type, uuid: uuid, subUUID: subUUID, label: label,
            partitions: parts, sectorSize: sectorSize ?? 512, places: places,
            fingerprint: fingerprint)
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

    package init(_ partition: Partition) {
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
