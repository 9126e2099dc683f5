// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import CBlkid
internal import Glibc

/// One probing of a range of a device by libblkid.
struct Probe: ~Copyable {
    enum Chains {
        case everything
        case superblocks
        case table
    }

    private let raw: blkid_probe
    private let start: Int
    private let isReady: Bool

    /// - Parameter sectorSize: bytes; the unit of a partition table's numbers.
    init(_ descriptor: Int32, _ range: ByteRange, _ chains: Chains, sectorSize: Int) {
        // It fails only without memory.
        guard let raw = blkid_new_probe() else { fatalError("blkid_new_probe") }
        self.raw = raw
        start = range.offset
        isReady =
            blkid_probe_set_device(raw, descriptor, Int64(range.offset), Int64(range.length)) == 0
            && blkid_probe_set_sectorsize(raw, UInt32(sectorSize)) == 0
        blkid_probe_enable_superblocks(raw, chains == .table ? 0 : 1)
        // Accepts wrong checksums: damaged content may be precious.
        blkid_probe_set_superblocks_flags(
            raw,
            BLKID_SUBLKS_TYPE | BLKID_SUBLKS_USAGE | BLKID_SUBLKS_UUID | BLKID_SUBLKS_LABEL
                | BLKID_SUBLKS_VERSION | BLKID_SUBLKS_MAGIC | BLKID_SUBLKS_BADCSUM)
        blkid_probe_enable_partitions(raw, chains == .superblocks ? 0 : 1)
        // Accepts a GPT without its protective MBR, so that its backup at the end is found.
        blkid_probe_set_partitions_flags(raw, BLKID_PARTS_MAGIC | BLKID_PARTS_FORCE_GPT)
    }

    deinit { blkid_free_probe(raw) }

    struct Findings {
        var signatures: [Signature]
        /// Whether libblkid reports that the signatures contradict each other.
        var isContradictory: Bool
    }

    /// Probes for everything that libblkid can find; `nil` if a part cannot be read.
    ///
    /// libblkid's safe probing stops at the first RAID or encryption superblock, and reports one
    /// place of each type. So each type is probed alone, and again with the found magic number
    /// hidden in libblkid's buffers, as wipefs(8) does. All of it uses the buffers that the first
    /// probing has filled.
    consuming func findings() -> Findings? {
        guard isReady else { return nil }
        // libblkid's values: 0 found, 1 nothing, -2 contradictory (superblocks/superblocks.c).
        let verdict = blkid_do_safeprobe(raw)
        guard verdict == 0 || verdict == 1 || verdict == -2 else { return nil }
        blkid_reset_probe(raw)
        // First, since asking for the partitions ends an enumeration.
        let partitions = partitions()
        blkid_reset_probe(raw)
        var found: [Signature] = []
        // The bound is a safeguard: each step hides a magic number or goes on to another type.
        for _ in 0..<1024 {
            let answer = blkid_do_probe(raw)
            if answer == 1 { return Findings(signatures: found, isContradictory: verdict == -2) }
            guard answer == 0 else { return nil }
            guard var next = signature() else { continue }
            let isFirst = !found.contains { $0.usage == .partitionTable }
            if next.usage == .partitionTable && isFirst { next.partitions = partitions }
            let isNew = found.addPlace(of: next)
            if isNew, let magic, blkid_probe_hide_range(raw, magic.offset, magic.length) == 0 {
                blkid_probe_step_back(raw)
            }
        }
        return Findings(signatures: found, isContradictory: true)
    }

    private borrowing func signature() -> Signature? {
        let places = magic.map { [Int(clamping: $0.offset)] } ?? []
        if let type = value("TYPE") {
            return Signature(
                usage: value("USAGE").flatMap { Signature.Usage(rawValue: $0) } ?? .other,
                type: type, uuid: value("UUID"), subUUID: value("UUID_SUB"),
                label: value("LABEL"), places: places, magicLength: magic.map { Int($0.length) })
        }
        guard let type = value("PTTYPE") else { return nil }
        return Signature(
            usage: .partitionTable, type: type, uuid: value("PTUUID"),
            sectorSize: Int(blkid_probe_get_sectorsize(raw)), places: places,
            magicLength: magic.map { Int($0.length) })
    }

    /// Place of the current result's magic number, in bytes from the start of the range.
    private var magic: (offset: UInt64, length: UInt64)? {
        for name in ["SBMAGIC", "PTMAGIC"] {
            var length = 0
            guard let place = value("\(name)_OFFSET").flatMap({ UInt64($0) }),
                blkid_probe_lookup_value(raw, name, nil, &length) == 0
            else { continue }
            return (place, UInt64(length))
        }
        return nil
    }

    /// A value of the current result; invalid UTF-8 is repaired.
    private borrowing func value(_ name: String) -> String? {
        var data: UnsafePointer<CChar>?
        guard blkid_probe_lookup_value(raw, name, &data, nil) == 0, let data else { return nil }
        let text = String(cString: data)
        return text.isEmpty ? nil : text
    }

    /// The partitions of the first table; libblkid counts 512 bytes, whatever the sector size is.
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
