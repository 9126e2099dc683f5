// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import Glibc
internal import LinuxIO
internal import SystemPackage

/// Finds out what is on a device: libblkid's low-level probing on a descriptor of our own, so that
/// neither udev nor the links under /dev/disk nor libblkid's cache file matter.
struct Prober: ~Copyable {
    private let file: OwnedDescriptor
    /// Bytes.
    private let size: Int
    /// Bytes; `nil` for an image, which has none of its own.
    private let logicalSector: Int?

    /// Opens a device for probing, beside whoever has it open.
    ///
    /// - Parameters:
    ///   - path: of the device or image.
    ///   - identity: what it must turn out to be.
    ///   - size: bytes.
    ///   - logicalSector: bytes; `nil` for an image.
    /// - Throws: what open(2) says; ESTALE when the path leads to something else by now.
    init(
        path: String, identity: DeviceIdentity, size: Int, logicalSector: Int?
    ) throws(Errno) {
        let file = try OwnedDescriptor.open(path, flags: O_RDONLY | O_NONBLOCK)
        let status = try file.status()
        let isSame =
            switch identity {
            case .device(let number): status.kind == .blockDevice && status.device == number
            case .image(let image, _): FileIdentity(status) == image
            case .newImage: false
            }
        guard isSame else { throw .staleNFSFileHandle }
        // Read what libblkid asks for and nothing ahead of it.
        _ = posix_fadvise(file.rawValue, 0, 0, POSIX_FADV_RANDOM)
        self.file = file
        self.size = size
        self.logicalSector = logicalSector
    }

    /// Probes the device.
    ///
    /// - Parameters:
    ///   - lookingIntoPartitions: also find out what each partition holds.
    ///   - knownPartitions: those that the kernel knows: where the table that they were read from
    ///     is no longer found, they are what it has to be taken for.
    /// - Returns: what is on it.
    func content(
        lookingIntoPartitions: Bool = false, knownPartitions: [Partition] = []
    ) -> Content {
        guard size > 0 else { return .empty }
        let whole = ByteRange(0, to: size)
        let keeper = PageCacheKeeper(file.rawValue, probing: whole)
        var content = probeWhole()
        if !knownPartitions.isEmpty && content.partitionTable == nil {
            let table = Signature(
                usage: .partitionTable, type: "damaged", partitions: knownPartitions)
            content = .ambiguous([table] + content.found)
        }
        if lookingIntoPartitions { content = content.map { lookingInto($0) } }
        keeper.restore()
        return content
    }

    private func probeWhole() -> Content {
        // What cannot be read cannot be known to be empty; libblkid takes it for nothing.
        if let reason = reasonUnreadable() { return .unreadable(reason) }
        let whole = ByteRange(0, to: size)
        let sector = logicalSector ?? 512
        guard let content = probe(whole, .everything, sector: sector) else {
            return .unreadable("libblkid cannot probe it")
        }
        let table = content.partitionTable
        // A GPT's MBR without the GPT: its numbers may count in sectors of another size, because
        // this is an image of a 4Kn disk, or a disk that was behind another controller.
        guard table?.type == "PMBR" else { return content }
        let found = probe(whole, .table, sector: sector == 512 ? 4096 : 512)
        guard let other = found?.partitionTable, other.type == "gpt" else { return content }
        return content.map { $0 == table ? other : $0 }
    }

    /// Why the first or last page cannot be read; `nil` when both can.
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

    private func probe(_ range: ByteRange, _ chains: Probe.Chains, sector: Int) -> Content? {
        Probe(file.rawValue, range, chains, sectorSize: sector).content {
            Probe(file.rawValue, range, chains, sectorSize: sector)
        }
    }

    /// Adds to each partition of a table what is in it.
    private func lookingInto(_ signature: Signature) -> Signature {
        var signature = signature
        // Enough for a message; a table may list thousands.
        for index in signature.partitions.indices.prefix(16) {
            let whole = ByteRange(0, to: size)
            guard let range = signature.partitions[index].range.intersection(whole) else {
                continue
            }
            let keeper = PageCacheKeeper(file.rawValue, probing: range)
            let inside = probe(range, .superblocks, sector: signature.sectorSize)?.found.first
            keeper.restore()
            signature.partitions[index].contentType = inside?.type
            signature.partitions[index].contentLabel = inside?.label
        }
        return signature
    }
}

extension Content {
    /// The same with each signature changed.
    fileprivate func map(_ change: (Signature) -> Signature) -> Content {
        switch self {
        case .signatures(let found): .signatures(found.map(change))
        case .ambiguous(let found): .ambiguous(found.map(change))
        case .empty, .unreadable: self
        }
    }
}
