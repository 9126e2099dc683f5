// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import Digests
internal import LinuxIO
internal import SyncEngine
internal import WireProtocol

/// One thread's access to a file of a pdiffcopy server.
///
/// It compares the digests of the server's table with the engine's. Each request reads or writes
/// one range.
final class PdiffcopyChannel: RemoteChannel {
    /// The server sends all digests once, at the start.
    let comparesAgain = false
    private let device: PdiffcopyDevice
    private let digestSize: Int
    /// The digest of a block of zeros; empty until first use.
    private var zeroDigest: [UInt8] = []
    private var digests = AlignedBuffer(count: 4096)
    /// Zero marks of the last comparison, one bit a block; each region starts with a new byte.
    private var marks = AlignedBuffer(count: 4096)
    /// Bytes of a read request at most, in whole blocks, because only whole blocks can be checked.
    private let request: Int
    private let body: ResponseBody
    /// Two digests of one block: the server's, and that of the received data.
    private let pair = AlignedBuffer(count: 4096)
    private var payload = AlignedBuffer(count: 4096)

    init(_ device: PdiffcopyDevice) {
        self.device = device
        digestSize = device.digestMethod.byteCount
        request = max(1, Limits.payload / device.block) * device.block
        body = ResponseBody(limit: request)
    }

    func compare(
        _ window: [ByteRange], digests ours: UnsafeRawBufferPointer
    ) throws(IOError) -> [RegionDifference] {
        let layout = BlockLayout(block: device.block)
        let regions = layout.regions(of: window)
        precondition(ours.count == regions.count * digestSize, "another block size")
        let perRegion = layout.region / layout.block
        let markSize = (perRegion + 7) / 8
        reserve(&digests, regions.count * perRegion * digestSize)
        reserve(&marks, regions.count * markSize)
        marks.bytes.initializeMemory(as: UInt8.self, repeating: 0)
        var first = 0
        for range in window {
            try fetchDigests(of: range, from: first)
            first += layout.blocks(in: range)
        }
        var differences: [RegionDifference] = []
        for (index, region) in regions.enumerated() {
            // Only the last region may be shorter.
            let start = index * perRegion
            let theirs = slice(
                digests.bytes, start * digestSize,
                (start + layout.blocks(in: region)) * digestSize)
            // The server has no digest for a region of several blocks.
            let mine = ours[index * digestSize..<(index + 1) * digestSize]
            if perRegion == 1 && theirs.elementsEqual(mine) { continue }
            for (number, block) in region.pieces(of: layout.block).enumerated() {
                try markZeros(start + number, block, at: index * markSize, number)
            }
            let mark = slice(marks.bytes, index * markSize, (index + 1) * markSize)
            differences.append(
                RegionDifference(
                    index: index, zeroMarks: UnsafeRawBufferPointer(mark),
                    digests: UnsafeRawBufferPointer(theirs)))
        }
        return differences
    }

    /// Gets the digests of all blocks of a range; the first one goes to `slot`.
    private func fetchDigests(of range: ByteRange, from slot: Int) throws(IOError) {
        let fileSize = device.fileSize
        let first = range.offset / device.block
        let blocks = range.pieces(of: device.block)
        // Blocks that the server hashed over the same bytes.
        let known =
            blocks.firstIndex { $0.end != min($0.offset + device.block, fileSize) } ?? blocks.count
        if known > 0 {
            try device.table.copy(
                first..<first + known,
                to: slice(digests.bytes, slot * digestSize, (slot + known) * digestSize))
        }
        for index in known..<blocks.count { try hash(slot + index, blocks[index], fileSize) }
    }

    /// Computes the digest of a block that does not end where the server's block ends.
    private func hash(_ index: Int, _ block: ByteRange, _ fileSize: Int) throws(IOError) {
        let slot = slot(index)
        // In a dry run the block may lie beyond the end of the file.
        if block.offset >= fileSize, block.length == device.block {
            slot.copyBytes(from: try digest(zeros: block.length))
            return
        }
        let memory = AlignedBuffer(count: block.length)
        let bytes = UnsafeMutableRawBufferPointer(rebasing: memory.bytes[..<block.length])
        try device.read(into: bytes, at: block.offset)
        try digest(UnsafeRawBufferPointer(bytes), into: slot)
    }

    /// Marks a block of zeros, and replaces its digest by the engine's digest of zeros.
    private func markZeros(
        _ index: Int, _ block: ByteRange, at mark: Int, _ number: Int
    ) throws(IOError) {
        let slot = slot(index)
        guard slot.elementsEqual(try digest(zeros: block.length)) else { return }
        let marks = marks.bytes
        marks[mark + number / 8] |= 1 << (number % 8)
        slot.initializeMemory(as: UInt8.self, repeating: 0)
    }

    /// Returns the digest of some zeros, which is cached for a whole block.
    private func digest(zeros count: Int) throws(IOError) -> [UInt8] {
        if count == device.block, !zeroDigest.isEmpty { return zeroDigest }
        var hasher = try BlockHasher(device.digestMethod, key: nil)
        let digest = try hasher.digest(ofZeros: count)
        if count == device.block { zeroDigest = digest }
        return digest
    }

    private func digest(
        _ bytes: UnsafeRawBufferPointer, into slot: UnsafeMutableRawBufferPointer
    ) throws(IOError) {
        var hasher = try BlockHasher(device.digestMethod, key: nil)
        try hasher.digest(of: bytes, into: slot)
    }

    private func slot(_ index: Int) -> UnsafeMutableRawBufferPointer {
        slice(digests.bytes, index * digestSize, (index + 1) * digestSize)
    }

    private func reserve(_ buffer: inout AlignedBuffer, _ count: Int) {
        if count > buffer.count { buffer = AlignedBuffer(count: max(count, 2 * buffer.count)) }
    }

    func write(
        _ extents: ArraySlice<Extent>, _ parts: [UnsafeRawBufferPointer]
    ) throws(IOError) {
        var rest = parts[...]
        for extent in extents {
            guard extent.kind == .data else {
                try device.zero(extent.range)
                continue
            }
            var offset = extent.range.offset
            while offset < extent.range.end {
                let (pieces, length) = take(
                    min(extent.range.end - offset, Limits.payload), from: &rest)
                try device.server.write(pieces, at: offset, mayWait: device.mayWait)
                offset += length
            }
        }
    }

    private func take(
        _ count: Int, from rest: inout ArraySlice<UnsafeRawBufferPointer>
    ) -> ([UnsafeRawBufferPointer], Int) {
        var pieces: [UnsafeRawBufferPointer] = []
        var open = count
        while open > 0 {
            guard let first = rest.first else { preconditionFailure("less data than extents") }
            let length = min(open, first.count)
            pieces.append(UnsafeRawBufferPointer(rebasing: first[..<length]))
            open -= length
            rest.removeFirst()
            if length < first.count {
                rest = [UnsafeRawBufferPointer(rebasing: first[length...])] + rest
            }
        }
        return (pieces, count)
    }

    func read(_ ranges: [ByteRange]) throws(IOError) -> ExtentData {
        reserve(&payload, ranges.reduce(0) { $0 + $1.length })
        var extents: [Extent] = []
        var count = 0
        for range in ranges {
            var offset = range.offset
            while offset < range.end {
                let piece = ByteRange(offset, to: min(offset + request, range.end))
                try device.server.read(piece, into: body, mayWait: device.mayWait)
                try check(piece)
                take(piece, to: &extents, &count)
                offset = piece.end
            }
        }
        return ExtentData(
            extents: extents, data: UnsafeRawBufferPointer(rebasing: payload.bytes[..<count]))
    }

    /// Checks received blocks against the server's digests, if a comparison requested them.
    private func check(_ range: ByteRange) throws(IOError) {
        guard let table = device.knownTable else { return }
        let (size, end) = (device.fileSize, digestSize)
        var offset = range.offset
        while offset < range.end {
            let block = ByteRange(offset, to: min(offset + device.block, range.end))
            offset = block.end
            let number = block.offset / device.block
            guard block.offset % device.block == 0,
                block.end == min(block.offset + device.block, size)
            else { continue }
            let theirs = slice(pair.bytes, 0, end)
            let ours = slice(pair.bytes, end, 2 * end)
            try table.copy(number..<number + 1, to: theirs)
            try digest(
                slice(body.bytes, block.offset - range.offset, block.end - range.offset),
                into: ours)
            guard theirs.elementsEqual(ours) else {
                throw .network(
                    device.name, "read at \(block.offset), \(block.length) bytes",
                    reason: "the data is not what the server has hashed: it has changed since, or "
                        + "was damaged on the way",
                    advice: "Run it again; a source that is in use is better read from a snapshot.")
            }
        }
    }

    /// Appends received data, with zero blocks as zero extents.
    private func take(_ range: ByteRange, to extents: inout [Extent], _ count: inout Int) {
        var offset = range.offset
        while offset < range.end {
            let end = min((offset / device.block + 1) * device.block, range.end)
            let block = ByteRange(offset, to: end)
            let bytes = slice(body.bytes, offset - range.offset, end - range.offset)
            let kind = isZero(bytes) ? Extent.Kind.zero : .data
            if kind == .data {
                slice(payload.bytes, count, count + bytes.count).copyMemory(from: bytes)
                count += bytes.count
            }
            if let last = extents.last, last.kind == kind, last.range.end == offset {
                extents[extents.count - 1].range.length += block.length
            } else {
                extents.append(Extent(block, kind))
            }
            offset = end
        }
    }
}
