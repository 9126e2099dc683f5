// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import Digests
internal import LinuxIO

/// Finds the blocks that differ within differing regions.
extension DigestWorker {
    mutating func compareBlocks(
        _ differences: ArraySlice<RegionDifference>, of part: LocalPart, localIsHole: Bool
    ) throws(IOError) -> Batch {
        var batch = Batch()
        let regions = differences.map { part.regions[$0.index] }
        if part.isKept {
            batch.places = part.ranges
        } else {
            batch.places = regions
            if !localIsHole { try readAgain(regions) }
        }
        var place = 0
        for (difference, region) in zip(differences, regions) {
            // All earlier regions have full length.
            let start = part.isKept ? difference.index * layout.region : place
            place += region.length
            try hasher.hashBlocks(
                of: localIsHole
                    ? nil : UnsafeRawBufferPointer(slice(memory, start, start + region.length)))
            appendDifferent(difference, region, to: &batch.extents)
        }
        return batch
    }

    /// Reads regions into memory without gaps, adjacent ones with one transfer.
    private func readAgain(_ regions: [ByteRange]) throws(IOError) {
        var transfers: [Transfer] = []
        var place = 0
        var index = 0
        while index < regions.count {
            var run = regions[index]
            index += 1
            while index < regions.count, regions[index].offset == run.end {
                run.length += regions[index].length
                index += 1
            }
            transfers.append(
                Transfer(into: slice(memory, place, place + run.length), at: run.offset))
            place += run.length
        }
        try local.read(transfers)
    }

    private func appendDifferent(
        _ difference: RegionDifference, _ region: ByteRange, to extents: inout [Extent]
    ) {
        let size = hasher.digestSize
        for block in 0..<layout.blocks(in: region) {
            let place = block * size..<(block + 1) * size
            let isTheirsZero = difference.isZero(block: block)
            if isTheirsZero == hasher.zeroBlocks[block]
                && difference.digests[place].elementsEqual(hasher.blockDigests[place])
            {
                continue
            }
            let isZero = isPush ? hasher.zeroBlocks[block] : isTheirsZero
            let start = region.offset + block * layout.block
            extents.append(
                joining: ByteRange(start, to: min(start + layout.block, region.end)),
                isZero ? .zero : .data)
        }
    }
}
