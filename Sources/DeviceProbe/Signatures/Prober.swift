// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import CLinuxBlock
internal import Glibc
internal import LinuxIO
internal import SystemPackage

/// Finds signatures on a device by libblkid's low-level probing.
///
/// It uses its own descriptor, so that neither udev nor the links under /dev/disk nor libblkid's
/// cache file matter.
struct Prober: ~Copyable {
    private let file: OwnedDescriptor
    /// Bytes.
    private let size: Int
    /// Bytes; `nil` for an image.
    private let logicalSector: Int?

    /// Opens a device for probing, without a claim or lock.
    ///
    /// - Parameter mayHang: opens in another process, since the driver may never answer open(2).
    /// - Throws: the error of open(2); ESTALE if the path leads to another device by now.
    init(
        path: String, identity: DeviceIdentity, size: Int, logicalSector: Int?,
        mayHang: Bool = false
    ) throws(Errno) {
        let flags = O_RDONLY | O_NONBLOCK
        let file =
            mayHang
            ? try OwnedDescriptor.openElsewhere(path, flags: flags)
            : try OwnedDescriptor.open(path, flags: flags)
        let status = try file.status()
        let isSame =
            switch identity {
            case .device(let number): status.kind == .blockDevice && status.device == number
            case .image(let image, _): FileIdentity(status) == image
            case .newImage: false
            }
        guard isSame else { throw .staleNFSFileHandle }
        // Reads without readahead.
        _ = posix_fadvise(file.rawValue, 0, 0, POSIX_FADV_RANDOM)
        self.file = file
        self.size = size
        self.logicalSector = logicalSector
    }

    /// Probes the device.
    ///
    /// - Parameters:
    ///   - lookingIntoPartitions: also finds the content of each partition, and keeps signatures in
    ///     them.
    ///   - knownPartitions: the kernel's; they stand for a damaged table if no table is found.
    func content(
        lookingIntoPartitions: Bool = false, knownPartitions: [Partition] = [],
        findingFormats: Bool = true
    ) -> Content {
        guard size > 0 else { return .empty }
        let whole = ByteRange(0, to: size)
        let keeper = PageCacheKeeper(file.rawValue, probing: whole)
        var content = probeWhole(findingFormats).map { fingerprinted($0) }
        if !knownPartitions.isEmpty && content.partitionTable == nil {
            let table = Signature(
                usage: .partitionTable, type: "damaged", partitions: knownPartitions)
            if case .partial(var partial) = content {
                partial.found.insert(table, at: 0)
                content = .partial(partial)
            } else {
                content = .ambiguous([table] + content.found)
            }
        }
        content =
            lookingIntoPartitions
            ? content.map { lookingInto($0) } : content.filter { !$0.isInPartition }
        keeper.restore()
        return content
    }

    private func probeWhole(_ findingFormats: Bool) -> Content {
        readAhead()
        // An unreadable device is not known to be empty, but libblkid would report nothing.
        let reason = reasonUnreadable()
        if reason == nil, let findings = findings() {
            return content(of: findings, withFormats: findingFormats)
        }
        return sampled(reason ?? "a part of what libblkid looks at cannot be read")
    }

    /// Has the kernel read both ends in ascending order, before libblkid asks for their pages in an
    /// order that makes a hard disk seek about 18 times.
    ///
    /// libblkid reads all of these ranges, since ZFS has two labels of 256 KiB at each end, at
    /// multiples of their size. So a bad sector is not read more often than without this function:
    /// readahead fails once, and skips pages that have failed before.
    private func readAhead() {
        let label = 256 << 10
        let labels = 512 << 10
        let tail = max(0, (size - labels) / label * label)
        for range in [ByteRange(0, to: min(labels, size)), ByteRange(tail, to: size)] {
            // The kernel cuts each request down to what the device reads ahead, mostly 128 KiB.
            for piece in range.pieces(of: 128 << 10) {
                _ = posix_fadvise(
                    file.rawValue, off_t(piece.offset), off_t(piece.length), POSIX_FADV_WILLNEED)
            }
        }
    }

    private func findings() -> Probe.Findings? {
        let whole = ByteRange(0, to: size)
        let sector = logicalSector ?? 512
        guard
            var findings = Probe(file.rawValue, whole, .everything, sectorSize: sector).findings()
        else { return nil }
        // A protective MBR without its GPT: the table may count in sectors of another size, because
        // this is an image of a 4Kn disk, or the disk was behind another controller.
        guard let index = findings.signatures.firstIndex(where: { $0.type == "PMBR" }) else {
            return findings
        }
        let other = sector == 512 ? 4096 : 512
        guard
            let tables = Probe(file.rawValue, whole, .table, sectorSize: other).findings()?
                .signatures.filter({ $0.type == "gpt" }), !tables.isEmpty
        else { return findings }
        findings.signatures.replaceSubrange(index...index, with: tables)
        return findings
    }

    /// Orders the findings, and decides whether they contradict each other.
    private func content(of findings: Probe.Findings, withFormats: Bool) -> Content {
        let found = findings.signatures
        var tables = found.filter { $0.usage == .partitionTable }
        var others = found.filter { $0.usage != .partitionTable }
        // A boot sector ends like an MBR, but has no table.
        let hasBootSector = others.contains { ($0.places.first ?? size) < 512 }
        tables.removeAll {
            $0.type == "dos" && $0.uuid == nil && $0.partitions.isEmpty && hasBootSector
        }
        let ranges = tables.first { !$0.isBackupTable && $0.type != "PMBR" }?.partitions.map(
            \.range)
        for index in others.indices {
            // The end of the disk may be the end of its last partition.
            guard let place = others[index].places.first, place > size / 2 else { continue }
            others[index].isInPartition =
                ranges?.contains { $0.offset <= place && place < $0.end } ?? false
        }
        if withFormats,
            let format = FileFormat.find(file, size: size, isImage: logicalSector == nil)
        {
            // Text counts only without signatures, since the start of other content may be a
            // script.
            if !format.isText || found.isEmpty { others.append(fileSignature(format)) }
        }
        let all = tables.sorted { !$0.isBackupTable && $1.isBackupTable } + others
        guard !all.isEmpty else { return .empty }
        let own = others.filter { !$0.isInPartition }
        let endsEarly = own.contains { $0.usage == .raid || $0.usage == .crypto }
        let isContradictory =
            findings.isContradictory || endsEarly && own.count + tables.count > 1
            || all.count > 1 && all.contains(where: \.isBackupTable)
        return isContradictory ? .ambiguous(all) : .signatures(all)
    }

    /// Why the first or last page cannot be read; `nil` if both can.
    private func reasonUnreadable() -> String? {
        let page = AlignedBuffer(count: 4096)
        for offset in [0, max(0, size - 4096)] {
            let wanted = min(4096, size - offset)
            let bytes = UnsafeMutableRawBufferPointer(rebasing: page.bytes[..<wanted])
            do throws(Errno) {
                guard try file.readOnce(into: bytes, at: offset) == wanted else {
                    throw .ioError
                }
            } catch {
                return error.description
            }
        }
        return nil
    }

    /// Pages that are read again by sectors; each bad sector can take seconds.
    private static let mostSplitPages = 4

    /// Probes a copy of the readable parts of both ends, with zeros elsewhere.
    ///
    /// So each failing place is read once or twice, not once for each type of superblock.
    private func sampled(_ reason: String) -> Content {
        var missing: [ByteRange] = []
        var splitPages = 0
        do throws(Errno) {
            let image = try SampledImage(size: size)
            for sample in SampledImage.samples(ofSize: size) + masterFileTable {
                for piece in sample.pieces(of: 64 << 10) {
                    let pages = try fill(image, piece) ? [] : piece.pieces(of: 4096)
                    for page in pages where try !fill(image, page) {
                        let isSplit = splitPages < Self.mostSplitPages
                        splitPages += 1
                        let bad = try isSplit ? badSectors(of: page, image) : [page]
                        for range in bad { missing.appendAdjacent(range) }
                    }
                }
            }
            let found = try image.found(sector: logicalSector)
            return found.isEmpty
                ? .unreadable(reason) : .partial(.init(found, missing: missing, reason: reason))
        } catch {
            return .unreadable(reason)
        }
    }

    /// Fills in the good sectors of a page that cannot be read, and returns the bad ones.
    ///
    /// The page cache fails for the whole page. With `--skip-unreadable` a run reads around the bad
    /// sectors, so that its target has the signatures of the good ones.
    private func badSectors(
        of page: ByteRange, _ image: borrowing SampledImage
    ) throws(Errno) -> [ByteRange] {
        let flags = fcntl(file.rawValue, F_GETFL)
        guard flags >= 0, fcntl(file.rawValue, F_SETFL, flags | clb_O_DIRECT) == 0 else {
            return [page]
        }
        defer { _ = fcntl(file.rawValue, F_SETFL, flags) }
        var bad: [ByteRange] = []
        for sector in page.pieces(of: logicalSector ?? 512) where try !fill(image, sector) {
            bad.appendAdjacent(sector)
        }
        return bad
    }

    /// Another place where libblkid looks for NTFS: the first records of the master file table.
    ///
    /// Source: `probe_ntfs` of libblkid; the boot sector has the size of a sector at 11, the
    /// sectors of a cluster at 13, and the table's cluster at 48.
    private var masterFileTable: [ByteRange] {
        guard let boot = file.bytes(of: ByteRange(0, to: min(512, size))), boot.count == 512,
            boot[3..<11].elementsEqual("NTFS    ".utf8)
        else { return [] }
        let cluster = (Int(boot[11]) | Int(boot[12]) << 8) * Int(boot[13])
        let number = boot[48..<56].reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        let (place, isTooFar) = Int(clamping: number).multipliedReportingOverflow(by: cluster)
        guard !isTooFar, place < size else { return [] }
        let start = place / 4096 * 4096
        return [ByteRange(offset: start, length: min(64 << 10, size - start))]
    }

    private func fill(_ image: borrowing SampledImage, _ range: ByteRange) throws(Errno) -> Bool {
        guard let bytes = file.bytes(of: range) else { return false }
        var failure: Errno?
        bytes.withUnsafeBytes {
            do throws(Errno) { try image.fill($0, at: range.offset) } catch { failure = error }
        }
        if let failure { throw failure }
        return true
    }

    // MARK: - What is inside

    /// Adds a fingerprint to a signature without an identifier.
    private func fingerprinted(_ signature: Signature) -> Signature {
        guard !signature.hasOwnIdentifier, signature.fingerprint == nil else { return signature }
        var signature = signature
        var bytes: [UInt8] = []
        for range in Fingerprint.ranges(of: signature, size: size) {
            guard let part = file.bytes(of: range) else { return signature }
            bytes += part
        }
        guard !bytes.isEmpty else { return signature }
        if signature.type == "BitLocker",
            let metadata = Fingerprint.metadata(ofBitLocker: bytes, size: size)
        {
            guard let part = file.bytes(of: metadata) else { return signature }
            bytes += part
        }
        // USB sticks of one make often have equal tables.
        for partition in signature.partitions.prefix(4) {
            bytes += Array(identity(of: partition, signature.sectorSize).utf8)
        }
        signature.fingerprint = Fingerprint.digest(of: bytes)
        return signature
    }

    private func identity(of partition: Partition, _ sector: Int) -> String {
        let found = signatures(in: partition, sector).map {
            "\($0.type) \($0.uuid ?? "") \($0.subUUID ?? "");"
        }
        return found.joined()
    }

    private func signatures(in partition: Partition, _ sector: Int) -> [Signature] {
        guard let range = partition.range.intersection(ByteRange(0, to: size)), range.offset > 0
        else { return [] }
        let keeper = PageCacheKeeper(file.rawValue, probing: range)
        let findings = Probe(file.rawValue, range, .superblocks, sectorSize: sector).findings()
        keeper.restore()
        return findings?.signatures ?? []
    }

    private func lookingInto(_ signature: Signature) -> Signature {
        var signature = signature
        // Enough for a message; a table may list thousands.
        for index in signature.partitions.indices.prefix(16) {
            let found = signatures(in: signature.partitions[index], signature.sectorSize)
            // Users know a partition by its file system.
            let inside = found.first { $0.usage == .filesystem } ?? found.first
            signature.partitions[index].contentType = inside?.type
            signature.partitions[index].contentLabel = inside?.label
        }
        return signature
    }

    private func fileSignature(_ format: FileFormat) -> Signature {
        var signature = Signature(
            usage: .other, type: format.type, uuid: format.uuid(file, size: size),
            places: [format.place(size: size)], magicLength: format.magicLength)
        if signature.uuid == nil { signature.fingerprint = format.fingerprint(file, size: size) }
        return signature
    }
}

extension SampledImage {
    fileprivate func found(sector: Int?) throws(Errno) -> [Signature] {
        try prober(sector).content().found
    }
}

extension [ByteRange] {
    /// Adds a range, merged with the last one if they are adjacent.
    fileprivate mutating func appendAdjacent(_ range: ByteRange) {
        if let last, last.end == range.offset {
            self[count - 1].length += range.length
        } else {
            append(range)
        }
    }
}
