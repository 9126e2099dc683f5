// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import LinuxIO

/// The parts of a VMDK image that identify its virtual disk.
///
/// Source: VMware, "Virtual Disk Format 5.0": `SparseExtentHeader` and the descriptor.
struct VmdkImage: GuestDisk {
    /// 0 for a descriptor whose extents are other files.
    let guestSize: Int
    let cluster: Int
    /// The lines of the descriptor that the guest's writes do not change.
    private let descriptor: [Substring]
    /// Place of the grain directory, in bytes of the file.
    private let directory: Int
    private let entries: Int
    private let size: Int

    /// Reads the header; `nil` if it is not valid, or if the image is compressed: no guest writes
    /// to such images.
    init?(_ file: borrowing OwnedDescriptor, size: Int) {
        self.size = size
        guard let bytes = file.bytes(of: ByteRange(0, to: min(512, size))), bytes.count > 78 else {
            return nil
        }
        guard bytes.starts(with: "KDMV".utf8) else {
            guard bytes.starts(with: "# Disk DescriptorFile".utf8) else { return nil }
            (self.guestSize, self.cluster) = (0, 512)
            (self.directory, self.entries) = (0, 0)
            descriptor = Self.lines(file, ByteRange(0, to: size))
            return
        }
        /// A number of sectors, in bytes.
        func sectors(at offset: Int) -> Int? {
            Int(exactly: bytes.littleEndian(8, at: offset)).flatMap {
                $0 <= Geometry.maximumSize / 512 ? $0 * 512 : nil
            }
        }
        let isCompressed = bytes.littleEndian(2, at: 77) != 0
        guard !isCompressed, let guestSize = sectors(at: 12), guestSize > 0,
            let cluster = sectors(at: 20), (512...1 << 24).contains(cluster),
            let text = sectors(at: 28), let textLength = sectors(at: 36),
            let directory = sectors(at: 56), directory > 0, directory < size
        else { return nil }
        entries = Int(bytes.littleEndian(4, at: 44))
        guard entries > 0 else { return nil }
        (self.guestSize, self.cluster, self.directory) = (guestSize, cluster, directory)
        let start = min(text, size)
        let range = ByteRange(offset: start, length: min(textLength, size - start))
        descriptor = text > 0 ? Self.lines(file, range) : []
    }

    private static func lines(
        _ file: borrowing OwnedDescriptor, _ range: ByteRange
    ) -> [Substring] {
        // The longest descriptors, of disks in many extents, have some KiB.
        let start = ByteRange(offset: range.offset, length: min(64 << 10, range.length))
        let bytes = file.bytes(of: start) ?? []
        let text = String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
        return text.split { $0.isNewline }.filter { line in
            !changing.contains { line.hasPrefix($0) }
        }
    }

    /// Lines that programs change when they open the disk for writing.
    private static let changing = [
        "CID=", "ddb.longContentID", "ddb.uuid.modification", "ddb.toolsVersion",
        "ddb.toolsInstallType",
    ]

    /// The identifier that VirtualBox and VMware keep in the descriptor; QEMU keeps none.
    var uuid: String? {
        for name in ["ddb.uuid.image", "ddb.uuid"] {
            let line = descriptor.first { $0.hasPrefix("\(name)=") || $0.hasPrefix("\(name) ") }
            let digits = line?.dropFirst(name.count).filter(\.isHexDigit) ?? ""
            if digits.count == 32, digits.contains(where: { $0 != "0" }) {
                return String(digits)
            }
        }
        return nil
    }

    /// Bytes that the guest's writes do not change, and that differ between two disks.
    ///
    /// `nil` if only the whole start of the file can distinguish them.
    func identity(_ file: borrowing OwnedDescriptor) -> [UInt8]? {
        let own = Array("\(guestSize) \(cluster)\n\(descriptor.joined(separator: "\n"))\n".utf8)
        guard guestSize > 0 else { return own }
        let start = guestStart(file)
        if let known = knownContent(start) { return own + known }
        return start.contains { $0 > 0 } ? own + start : nil
    }

    func place(of offset: Int, _ file: borrowing OwnedDescriptor) -> Int? {
        let number = offset / cluster
        guard let table = entry(number / entries, of: directory, file), table > 1,
            let grain = entry(number % entries, of: table * 512, file),
            // 1 stands for a grain of zeros.
            grain > 1, grain * 512 < size
        else { return nil }
        return grain * 512
    }

    private func entry(
        _ index: Int, of table: Int, _ file: borrowing OwnedDescriptor
    ) -> Int? {
        let place = table + 4 * index
        guard place <= size - 4 else { return nil }
        return file.bytes(of: ByteRange(offset: place, length: 4)).map {
            Int($0.littleEndian(4, at: 0))
        }
    }
}
