// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import Digests
internal import LinuxIO
internal import WireProtocol

/// One thread's share of a pass in which one side is on another machine.
///
/// The local side is read and hashed; the other says which regions differ and what the digests of
/// their blocks are; the blocks that differ are sent or fetched. A window that fits in the worker's
/// memory is read once. Of a longer one the regions that differ are read a second time, which costs
/// little where they are few, and keeps memory small and the hashing within the processor's caches;
/// where they are many, the pass makes the windows short.
struct DigestWorker: ~Copyable {
    var ownTally = Tally()
    let pass: Pass
    let layout: WireLayout
    let local: any BlockDevice
    let channel: any RemoteChannel
    /// The remote side is the target.
    private let isPush: Bool
    private var hasher: BlockHasher
    let memory: UnsafeMutableRawBufferPointer
    /// Works on windows that cannot be compared by digests: where the remote side has a hole, and
    /// around bad sectors.
    private var byBytes: Worker

    /// One digest a region of a window.
    private let regionDigests: Scratch<UInt8>
    /// One digest and one mark a block of a region.
    private let blockDigests: Scratch<UInt8>
    private let zeroBlocks: Scratch<Bool>
    /// Digest of a whole region of zeros.
    private var zeroDigest: [UInt8]

    /// Prepares a worker.
    ///
    /// - Parameters:
    ///   - pass: what it works for; one of its devices is remote.
    ///   - memory: at least `Worker.memory(for:)`, aligned for the local device.
    /// - Throws: when libcrypto refuses the digest.
    init(_ pass: Pass, memory: UnsafeMutableRawBufferPointer) throws(IOError) {
        let target = pass.target as? any RemoteDevice
        guard let remote = target ?? (pass.source as? any RemoteDevice) else {
            preconditionFailure("both devices are local")
        }
        let layout = try Self.layout(of: pass, digests: remote)
        let hasher = try Self.hasher(for: remote)
        self.layout = layout
        self.hasher = hasher
        isPush = target != nil
        local = isPush ? pass.source : pass.target
        self.pass = pass
        self.memory = memory
        channel = remote.openChannel()
        byBytes = Worker(pass, memory: memory)
        let blocks = layout.region / layout.block
        let size = layout.digestSize
        regionDigests = Scratch(count: pass.layout.remoteWindow / layout.region * size, of: 0)
        blockDigests = Scratch(count: blocks * size, of: 0)
        zeroBlocks = Scratch(count: blocks, of: false)
        zeroDigest = []
    }

    private static func hasher(for remote: any RemoteDevice) throws(IOError) -> BlockHasher {
        do throws(DigestError) {
            return try BlockHasher(remote.digestMethod, key: remote.digestKey)
        } catch {
            throw IOError(remote.name, error.operation, reason: error.reason)
        }
    }

    private static func layout(
        of pass: Pass, digests remote: any RemoteDevice
    ) throws(IOError) -> WireLayout {
        do throws(WireError) {
            return try WireLayout(
                block: pass.layout.block, region: pass.layout.region,
                digestSize: remote.digestMethod.byteCount)
        } catch {
            throw IOError(remote.name, "compare", reason: error.reason)
        }
    }

    /// What all of its windows came to.
    var tally: Tally {
        var sum = ownTally
        sum.merge(byBytes.tally)
        return sum
    }

    /// Works until no window is left.
    mutating func run() {
        while let window = pass.next() {
            do throws(IOError) {
                try process(window)
            } catch {
                // The one who cancelled waits for neither a bad block nor a lost server.
                if pass.control.isCancelled && (error.isMediumError || error.isNetwork) { return }
                pass.fail(error)
            }
        }
    }

    private mutating func process(_ window: Window) throws(IOError) {
        if isPush ? window.targetIsHole : window.sourceIsHole {
            return try processByBytes(window)
        }
        if pass.mode == .replace { return try fetch(window) }
        let localIsHole = isPush ? window.sourceIsHole : window.targetIsHole
        do throws(IOError) {
            try processByDigests(window.range, localIsHole: localIsHole)
        } catch {
            guard error.isMediumError && canDoWithout(error) else { throw error }
            try processByBytes(window)
        }
    }

    /// Fetches all of a window, whatever is here.
    private mutating func fetch(_ window: Window) throws(IOError) {
        var result = WindowResult(range: window.range)
        let extents = [Extent(window.range, .data)]
        result.add(extents)
        do throws(IOError) {
            guard try pull(extents, targetIsZero: window.targetIsHole) else { return }
        } catch {
            guard error.isMediumError && pass.skipsUnreadable else { throw error }
            return try processByBytes(window)
        }
        note(result)
        pass.control.advance(done: window.range.length, different: result.different)
    }

    /// Whether a bad sector is no reason to end the pass.
    private func canDoWithout(_ error: IOError) -> Bool {
        pass.mode != .compare || pass.skipsUnreadable
    }

    private mutating func processByBytes(_ window: Window) throws(IOError) {
        var offset = window.range.offset
        while offset < window.range.end && !pass.isStopping {
            let end = min(offset + pass.layout.window, window.range.end)
            var piece = window
            piece.range = ByteRange(offset, to: end)
            try byBytes.process(piece)
            offset = end
        }
    }

    private mutating func processByDigests(
        _ range: ByteRange, localIsHole: Bool
    ) throws(IOError) {
        try hashRegions(of: range, localIsHole: localIsHole)
        let size = layout.regions(in: range) * layout.digestSize
        let differences = try channel.compare(
            range, digests: UnsafeRawBufferPointer(rebasing: regionDigests.bytes[..<size]))
        let isKept = range.length <= memory.count
        var result = WindowResult(range: range)
        var found: [Batch] = []
        var batch = Batch()
        var start = 0
        while start < differences.count {
            let end = isKept ? differences.count : endOfBatch(from: start, differences, range)
            batch = try compareBlocks(
                differences[start..<end], of: range, isKept: isKept, localIsHole: localIsHole)
            result.add(batch.extents)
            if !batch.extents.isEmpty { found.append(batch) }
            start = end
            // What was read must be sent before the memory is used for the next regions.
            if pass.mode != .compare && isPush {
                guard push(batch) else { return }
                found.removeAll()
            }
        }
        if pass.mode != .compare && !isPush {
            for batch in found {
                guard try pull(batch.extents) else { return }
            }
        }
        // Not before all of it is done: what is counted as compared is finished.
        note(result)
        pass.adapt(toDifferent: differences.count * layout.region, of: range.length)
        pass.control.advance(done: range.length, different: result.different)
    }

    /// Extents that differ, and where the local bytes of them are.
    struct Batch {
        var extents: [Extent] = []
        /// Regions that are in the memory one after the other.
        var places: [ByteRange] = []
    }

    /// What a window comes to.
    private struct WindowResult {
        var range: ByteRange
        var extents: [Extent] = []
        var different = 0

        init(range: ByteRange) { self.range = range }

        mutating func add(_ more: [Extent]) {
            extents += more
            different += more.reduce(0) { $0 + $1.range.length }
        }
    }

    private mutating func note(_ result: WindowResult) {
        pass.note(different: result.extents, unreadable: [])
        ownTally.compared += result.range.length
        ownTally.different += result.different
        for extent in result.extents {
            ownTally.differentBlocks += pass.layout.blocks(in: extent.range)
        }
    }

    /// Reads the local side and computes its digests.
    private mutating func hashRegions(
        of range: ByteRange, localIsHole: Bool
    ) throws(IOError) {
        // What is not kept goes through as little memory as possible: the less is touched, the
        // more of it stays in the processor's caches.
        let room = range.length <= memory.count ? range.length : pass.layout.window
        let step = localIsHole ? range.length : room
        var offset = range.offset
        var filled = 0
        while offset < range.end {
            let piece = ByteRange(offset, to: min(offset + step, range.end))
            let size = layout.regions(in: piece) * layout.digestSize
            if localIsHole {
                try fillZeroDigests(of: piece)
            } else {
                let bytes = UnsafeMutableRawBufferPointer(rebasing: memory[..<piece.length])
                try readAndHash(piece, bytes, digestsAt: filled, size)
            }
            filled += size
            offset = piece.end
        }
    }

    /// In parts that stay in the processor's cache between reading and hashing.
    private mutating func readAndHash(
        _ piece: ByteRange, _ bytes: UnsafeMutableRawBufferPointer, digestsAt position: Int,
        _ size: Int
    ) throws(IOError) {
        let part = max(1, pass.layout.window / layout.region) * layout.region
        var done = 0
        var position = position
        while done < piece.length {
            let end = min(done + part, piece.length)
            let slice = UnsafeMutableRawBufferPointer(rebasing: bytes[done..<end])
            try local.read(into: slice, at: piece.offset + done)
            let count = layout.regions(in: ByteRange(offset: 0, length: end - done))
            do throws(DigestError) {
                try hasher.regionDigests(
                    of: UnsafeRawBufferPointer(slice), regionSize: layout.region,
                    into: UnsafeMutableRawBufferPointer(
                        rebasing: regionDigests.bytes[
                            position..<position + count * layout.digestSize]))
            } catch {
                throw asIOError(error)
            }
            position += count * layout.digestSize
            done = end
        }
    }

    private mutating func fillZeroDigests(of range: ByteRange) throws(IOError) {
        let size = layout.digestSize
        if zeroDigest.isEmpty { zeroDigest = try digestOfZeros(layout.region) }
        for index in 0..<layout.regions(in: range) {
            let region = layout.region(index, of: range)
            let digest =
                region.length == layout.region ? zeroDigest : try digestOfZeros(region.length)
            UnsafeMutableRawBufferPointer(rebasing: regionDigests.bytes[(index * size)...])
                .copyBytes(from: digest)
        }
    }

    private mutating func digestOfZeros(_ count: Int) throws(IOError) -> [UInt8] {
        let zeros = UnsafeMutableRawBufferPointer.allocate(byteCount: count, alignment: 8)
        defer { zeros.deallocate() }
        zeros.initializeMemory(as: UInt8.self, repeating: 0)
        do throws(DigestError) {
            try hasher.digest(of: UnsafeRawBufferPointer(zeros), into: blockDigests.bytes)
        } catch {
            throw asIOError(error)
        }
        return Array(blockDigests.bytes[..<layout.digestSize])
    }

    private func asIOError(_ error: DigestError) -> IOError {
        IOError(local.name, error.operation, reason: error.reason)
    }

    /// How many of the regions that differ fit in the memory together.
    private func endOfBatch(
        from start: Int, _ differences: [RegionDifference], _ range: ByteRange
    ) -> Int {
        var room = memory.count
        var end = start
        while end < differences.count {
            let length = layout.region(differences[end].index, of: range).length
            if length > room { break }
            room -= length
            end += 1
        }
        return end
    }

    /// Compares the blocks of regions that differ.
    private mutating func compareBlocks(
        _ differences: ArraySlice<RegionDifference>, of range: ByteRange, isKept: Bool,
        localIsHole: Bool
    ) throws(IOError) -> Batch {
        var batch = Batch()
        let regions = differences.map { layout.region($0.index, of: range) }
        if isKept {
            batch.places = [range]
        } else {
            batch.places = regions
            if !localIsHole { try readAgain(regions) }
        }
        var place = 0
        for (difference, region) in zip(differences, regions) {
            let start = isKept ? region.offset - range.offset : place
            place += region.length
            try hashBlocks(of: region, at: start, localIsHole: localIsHole)
            appendDifferent(difference, region, to: &batch.extents)
        }
        return batch
    }

    /// Fills the memory with regions, one after the other, adjacent ones in one go.
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
                Transfer(
                    into: UnsafeMutableRawBufferPointer(
                        rebasing: memory[place..<place + run.length]), at: run.offset))
            place += run.length
        }
        try local.read(transfers)
    }

    private mutating func hashBlocks(
        of region: ByteRange, at start: Int, localIsHole: Bool
    ) throws(IOError) {
        guard !localIsHole else {
            zeroBlocks.elements.update(repeating: true)
            blockDigests.elements.update(repeating: 0)
            return
        }
        do throws(DigestError) {
            try hasher.blockDigests(
                of: UnsafeRawBufferPointer(rebasing: memory[start..<start + region.length]),
                blockSize: layout.block, into: blockDigests.bytes,
                zeroBlocks: zeroBlocks.elements)
        } catch {
            throw asIOError(error)
        }
    }

    private func appendDifferent(
        _ difference: RegionDifference, _ region: ByteRange, to extents: inout [Extent]
    ) {
        let size = layout.digestSize
        for block in 0..<layout.blocks(in: region) {
            let place = block * size..<(block + 1) * size
            let isTheirsZero = difference.isZero(block: block)
            if isTheirsZero == zeroBlocks.elements[block]
                && difference.digests[place].elementsEqual(blockDigests.bytes[place])
            {
                continue
            }
            let isZero = isPush ? zeroBlocks.elements[block] : isTheirsZero
            let start = region.offset + block * layout.block
            extents.append(
                joining: ByteRange(start, to: min(start + layout.block, region.end)),
                isZero ? .zero : .data)
        }
    }
}
