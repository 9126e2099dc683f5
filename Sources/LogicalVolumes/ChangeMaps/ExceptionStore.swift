// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices
package import LinuxIO

/// The exception store of a classic snapshot, where the kernel saves the origin's old chunks before
/// they are overwritten.
///
/// Source: drivers/md/dm-snap-persistent.c. Chunk 0 is the header. Areas of one chunk follow, each
/// followed by as many data chunks as the area has entries. An entry is the chunk's number in the
/// origin and the number of its copy in the store, 64 bits each. All numbers are little-endian. An
/// entry without a copy ends the list.
package struct ExceptionStore {
    /// Bytes of a chunk.
    package let chunkSize: Int
    private let device: any BlockDevice
    private let chunkCount: Int
    private let entriesPerArea: Int

    private static let magic: UInt32 = 0x7041_6E53
    private static let version: UInt32 = 1
    private static let entrySize = 16
    /// Bytes of one read; an area may be larger.
    private static let pieceSize = 1 << 20

    /// Reads the header; throws if there is no valid store.
    ///
    /// The device must be opened with direct I/O, because the kernel writes the store below the
    /// page cache.
    package init(_ device: any BlockDevice) throws(IOError) {
        let geometry = device.geometry
        let buffer = AlignedBuffer(count: max(512, geometry.alignment))
        let length = max(512, geometry.alignment)
        guard geometry.size >= length else { throw Self.fault(device, "it is too short") }
        let bytes = UnsafeMutableRawBufferPointer(rebasing: buffer.bytes[..<length])
        try Self.read(device, into: bytes, at: 0)
        func word(_ index: Int) -> UInt32 {
            UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 4 * index, as: UInt32.self))
        }
        guard word(0) == Self.magic else {
            throw Self.fault(device, "it does not start as one")
        }
        guard word(1) != 0 else { throw Self.fault(device, "the snapshot is invalid") }
        guard word(2) == Self.version else {
            throw Self.fault(device, "its version is \(word(2)), not \(Self.version)")
        }
        let sectors = Int(word(3))
        // dm-exception-store.c has the same limits.
        guard sectors > 0, sectors.nonzeroBitCount == 1, sectors <= Int(Int32.max) >> 9,
            sectors * 512 % geometry.alignment == 0
        else { throw Self.fault(device, "its chunks are of \(sectors) sectors") }
        self.device = device
        chunkSize = sectors * 512
        chunkCount = geometry.size / chunkSize
        entriesPerArea = chunkSize / Self.entrySize
    }

    /// Makes the map of the origin, `size` bytes now, since the snapshot was made.
    ///
    /// The map includes writes to the snapshot itself. It takes memory for one area and for a
    /// little more than one bit a chunk.
    ///
    /// - Throws: also if the store is damaged.
    package func map(
        size: Int, oldSize: Int, unless isCancelled: () -> Bool
    ) throws(IOError) -> ChangeMap {
        var walk = Walk(origin: ChunkSet(), copies: ChunkSet())
        let buffer = AlignedBuffer(count: min(chunkSize, Self.pieceSize))
        let length = min(chunkSize, Self.pieceSize)
        let piece = UnsafeMutableRawBufferPointer(rebasing: buffer.bytes[..<length])
        for area in 0... {
            let chunk = 1 + area * (entriesPerArea + 1)
            guard chunk < chunkCount else {
                throw fault("area \(area) is beyond the end")
            }
            for offset in stride(from: 0, to: chunkSize, by: length) {
                if isCancelled() { throw .cancelled(device.name) }
                try Self.read(device, into: piece, at: chunk * chunkSize + offset)
                if try add(UnsafeRawBufferPointer(piece), to: &walk, oldSize: oldSize) { continue }
                return ChangeMap(
                    walk.origin.ranges(chunkSize: chunkSize, limit: oldSize), chunk: chunkSize,
                    size: size, oldSize: oldSize)
            }
        }
        throw fault("it does not end")
    }

    private struct Walk {
        var origin: ChunkSet
        var copies: ChunkSet
    }

    /// Adds the entries of a piece of an area; `false` if the list ends in it.
    private func add(
        _ piece: UnsafeRawBufferPointer, to walk: inout Walk, oldSize: Int
    ) throws(IOError) -> Bool {
        for offset in stride(from: 0, to: piece.count, by: Self.entrySize) {
            func number(_ offset: Int) -> UInt64 {
                UInt64(littleEndian: piece.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
            }
            let (original, copy) = (number(offset), number(offset + 8))
            if copy == 0 { return false }
            // Area chunks leave the remainder 1, and the first one follows the header.
            guard copy < UInt64(chunkCount) else {
                throw fault("a copy in chunk \(copy) is beyond the end")
            }
            guard copy > 1, Int(copy) % (entriesPerArea + 1) != 1 else {
                throw fault("a copy in chunk \(copy), which is not for data")
            }
            // The kernel does not track the part by which the origin has grown (`__origin_write`).
            guard original < UInt64(oldSize / chunkSize + (oldSize % chunkSize).signum()) else {
                throw fault("chunk \(original) is beyond the snapshot's end")
            }
            guard walk.copies.insert(Int(copy)) else {
                throw fault("chunk \(copy) is the copy of two")
            }
            guard walk.origin.insert(Int(original)) else {
                throw fault("chunk \(original) is copied twice")
            }
        }
        return true
    }

    private static func read(
        _ device: any BlockDevice, into buffer: UnsafeMutableRawBufferPointer, at offset: Int
    ) throws(IOError) {
        do throws(IOError) { try device.read(into: buffer, at: offset) } catch {
            throw .noChangeMap(device.name, "\(error.operation): \(error.reason)")
        }
    }

    private func fault(_ reason: String) -> IOError { Self.fault(device, reason) }

    private static func fault(_ device: any BlockDevice, _ reason: String) -> IOError {
        .noChangeMap(device.name, "the exception store: \(reason)")
    }
}
