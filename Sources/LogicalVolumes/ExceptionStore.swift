// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices
internal import LinuxIO

/// The exception store of a classic snapshot: where the kernel keeps what the origin held when the
/// snapshot was made, of each chunk that was written to since.
///
/// Source: drivers/md/dm-snap-persistent.c. Chunk 0 is the header; then come areas of one chunk,
/// each followed by as many chunks of data as it has entries. An entry is the chunk's number in the
/// origin and that of its copy here, 64 bits each; all numbers are little-endian. An entry without
/// a copy ends the list.
package struct ExceptionStore {
    /// Bytes of a chunk.
    package let chunkSize: Int
    private let device: any BlockDevice
    /// Whole chunks of the device.
    private let chunkCount: Int
    private let entriesPerArea: Int

    private static let magic: UInt32 = 0x7041_6E53
    private static let version: UInt32 = 1
    /// Bytes of an entry.
    private static let entrySize = 16
    /// Bytes that are read at once; an area may be larger.
    private static let pieceSize = 1 << 20

    /// Reads the header.
    ///
    /// The kernel writes the store below the page cache, so that only direct I/O sees all of it.
    ///
    /// - Parameter device: the device that the store is on, opened with direct I/O.
    /// - Throws: where it is none that is in order.
    package init(_ device: any BlockDevice) throws(ChangeMapError) {
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

    /// Makes the map of the origin since the snapshot was made.
    ///
    /// Writes to the snapshot itself are in it as well. Memory is needed for one area and for a bit
    /// or a little more a chunk.
    ///
    /// - Parameters:
    ///   - size: bytes of the origin as it is now.
    ///   - oldSize: bytes of the snapshot.
    ///   - isOver: asked now and then.
    /// - Returns: the map.
    /// - Throws: where the store is not in order.
    package func map(
        size: Int, oldSize: Int, unless isOver: () -> Bool
    ) throws(ChangeMapError) -> ChangeMap {
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
                if isOver() { throw .cancelled(device.name) }
                try Self.read(device, into: piece, at: chunk * chunkSize + offset)
                if try add(UnsafeRawBufferPointer(piece), to: &walk, oldSize: oldSize) { continue }
                return ChangeMap(
                    walk.origin.ranges(chunkSize: chunkSize, limit: oldSize), chunk: chunkSize,
                    size: size, oldSize: oldSize)
            }
        }
        throw fault("it does not end")
    }

    /// The chunks that were met so far.
    private struct Walk {
        var origin: ChunkSet
        var copies: ChunkSet
    }

    /// Takes up the entries of a piece of an area.
    ///
    /// - Returns: `false` where the list ends in it.
    private func add(
        _ piece: UnsafeRawBufferPointer, to walk: inout Walk, oldSize: Int
    ) throws(ChangeMapError) -> Bool {
        for offset in stride(from: 0, to: piece.count, by: Self.entrySize) {
            func number(_ offset: Int) -> UInt64 {
                UInt64(littleEndian: piece.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
            }
            let (original, copy) = (number(offset), number(offset + 8))
            if copy == 0 { return false }
            // An area is where 1 is left, and the first of them is right behind the header.
            guard copy < UInt64(chunkCount) else {
                throw fault("a copy in chunk \(copy) is beyond the end")
            }
            guard copy > 1, Int(copy) % (entriesPerArea + 1) != 1 else {
                throw fault("a copy in chunk \(copy), which is not for data")
            }
            // The kernel leaves alone what the origin has grown by (`__origin_write`).
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
    ) throws(ChangeMapError) {
        do throws(IOError) { try device.read(into: buffer, at: offset) } catch {
            throw ChangeMapError(device.name, "\(error.operation): \(error.reason)")
        }
    }

    private func fault(_ reason: String) -> ChangeMapError { Self.fault(device, reason) }

    private static func fault(_ device: any BlockDevice, _ reason: String) -> ChangeMapError {
        ChangeMapError(device.name, "the exception store: \(reason)")
    }
}
