// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import LinuxIO
internal import SystemPackage

/// A virtual machine's image with tables that map the guest's disk to the file.
protocol GuestDisk {
    var guestSize: Int { get }
    /// Bytes of the guest's disk for each entry of the tables.
    var cluster: Int { get }

    /// Place of a cluster of the guest's disk, in bytes of the file.
    ///
    /// `nil` if the file has no own cluster for it, or a compressed one.
    func place(of offset: Int, _ file: borrowing OwnedDescriptor) -> Int?
}

extension GuestDisk {
    /// The first MiB of the guest's disk; unmapped clusters are zeros.
    func guestStart(_ file: borrowing OwnedDescriptor) -> [UInt8] {
        var start = [UInt8](repeating: 0, count: min(1 << 20, guestSize))
        for offset in stride(from: 0, to: start.count, by: cluster) {
            let length = min(cluster, start.count - offset)
            guard let place = place(of: offset, file),
                let bytes = file.bytes(of: ByteRange(offset: place, length: length))
            else { continue }
            start.replaceSubrange(offset..<offset + length, with: bytes)
        }
        return start
    }

    /// The identifiers found at the start of the guest's disk; `nil` if nothing is known there.
    func knownContent(_ start: [UInt8]) -> [UInt8]? {
        guard let image = try? SampledImage(size: guestSize) else { return nil }
        let isFilled: Void? = start.withUnsafeBytes { try? image.fill($0, at: 0) }
        guard isFilled != nil, let found = try? image.guestContent().found, !found.isEmpty else {
            return nil
        }
        return found.flatMap {
            Array("\($0.type) \($0.uuid ?? "") \($0.subUUID ?? "") \($0.fingerprint ?? "");".utf8)
        }
    }
}

extension [UInt8] {
    func bigEndian(_ length: Int, at offset: Int) -> UInt64 {
        self[offset..<offset + length].reduce(0) { $0 << 8 | UInt64($1) }
    }

    func littleEndian(_ length: Int, at offset: Int) -> UInt64 {
        self[offset..<offset + length].reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }
}
