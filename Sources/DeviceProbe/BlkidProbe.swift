// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import CBlkid
internal import Glibc

/// One probing by libblkid of a range of a device.
struct Probe: ~Copyable {
    /// What is looked for.
    enum Chains {
        case everything
        case superblocks
        case table
    }

    private let raw: blkid_probe
    private let start: Int
    private let isReady: Bool

    /// Prepares a probing.
    ///
    /// - Parameters:
    ///   - descriptor: of the device; it stays the caller's.
    ///   - range: bytes of the device.
    ///   - chains: what is looked for.
    ///   - sectorSize: bytes; what a partition table's numbers count in.
    init(_ descriptor: Int32, _ range: ByteRange, _ chains: Chains, sectorSize: Int) {
        // Memory alone can be missing.
        guard let raw = blkid_new_probe() else { fatalError("blkid_new_probe") }
        self.raw = raw
        start = range.offset
        isReady =
            blkid_probe_set_device(raw, descriptor, Int64(range.offset), Int64(range.length)) == 0
            && blkid_probe_set_sectorsize(raw, UInt32(sectorSize)) == 0
        blkid_probe_enable_superblocks(raw, chains == .table ? 0 : 1)
        // Also with a wrong checksum: what is damaged may be precious.
        blkid_probe_set_superblocks_flags(
            raw,
            BLKID_SUBLKS_TYPE | BLKID_SUBLKS_USAGE | BLKID_SUBLKS_UUID | BLKID_SUBLKS_LABEL
                | BLKID_SUBLKS_VERSION | BLKID_SUBLKS_BADCSUM)
        blkid_probe_enable_partitions(raw, chains == .superblocks ? 0 : 1)
    }

    deinit { blkid_free_probe(raw) }

    /// Probes.
    ///
    /// - Parameter again: prepares the same probing once more, to list what contradicts itself.
    /// - Returns: `nil` when it fails.
    consuming func content(_ again: () -> Probe) -> Content? {
        guard isReady else { return nil }
        // Values of libblkid's: 0 found, 1 nothing, -2 contradictory (superblocks/superblocks.c).
        switch blkid_do_safeprobe(raw) {
        case 0:
            let found = signatures()
            return found.isEmpty ? .empty : .signatures(found)
        case 1: return .empty
        case -2: return .ambiguous(again().everySignature())
        default: return nil
        }
    }

    /// Every single thing that is found, contradictory or not.
    private consuming func everySignature() -> [Signature] {
        var all: [Signature] = []
        // The bound is a fuse: each step finds something new or ends.
        for _ in 0..<64 {
            guard blkid_do_probe(raw) == 0 else { break }
            for signature in signatures() where !all.contains(signature) { all.append(signature) }
        }
        return all
    }

    /// What the values of the current result say.
    private borrowing func signatures() -> [Signature] {
        var found: [Signature] = []
        if let type = value("TYPE") {
            found.append(
                Signature(
                    usage: value("USAGE").flatMap { Signature.Usage(rawValue: $0) } ?? .other,
                    type: type, uuid: value("UUID"), subUUID: value("UUID_SUB"),
                    label: value("LABEL")))
        }
        if let type = value("PTTYPE") {
            let uuid = value("PTUUID")
            found.insert(
                Signature(
                    usage: .partitionTable, type: type, uuid: uuid, partitions: partitions(),
                    sectorSize: Int(blkid_probe_get_sectorsize(raw))), at: 0)
        }
        return found
    }

    /// One value of the current result; text that is no UTF-8 is repaired.
    private borrowing func value(_ name: String) -> String? {
        var data: UnsafePointer<CChar>?
        guard blkid_probe_lookup_value(raw, name, &data, nil) == 0, let data else { return nil }
        let text = String(cString: data)
        return text.isEmpty ? nil : text
    }

    /// The partitions of the table; libblkid counts in units of 512 bytes whatever the sector is.
    private borrowing func partitions() -> [Partition] {
        guard let list = blkid_probe_get_partitions(raw) else { return [] }
        return (0..<blkid_partlist_numof_partitions(list)).compactMap { index in
            guard let entry = blkid_partlist_get_partition(list, index) else { return nil }
            let (offset, first) = Int(blkid_partition_get_start(entry))
                .multipliedReportingOverflow(by: 512)
            let (length, second) = Int(blkid_partition_get_size(entry))
                .multipliedReportingOverflow(by: 512)
            guard !first, !second, offset >= start, length >= 0, offset <= .max - length else {
                return nil
            }
            let type = blkid_partition_get_type_string(entry).map { String(cString: $0) }
            return Partition(
                number: Int(blkid_partition_get_partno(entry)),
                range: ByteRange(offset: offset, length: length),
                type: type ?? "0x" + String(blkid_partition_get_type(entry), radix: 16),
                name: blkid_partition_get_name(entry).map { String(cString: $0) },
                uuid: blkid_partition_get_uuid(entry).map { String(cString: $0) })
        }
    }
}
