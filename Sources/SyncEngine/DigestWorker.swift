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
    let isPush: Bool
    var hasher: BlockHasher
    let memory: UnsafeMutableRawBufferPointer
    /// Works on windows that cannot be compared by digests: where the remote side has a hole, and
    /// around bad sectors.
    private var byBytes: Worker

    /// One digest a region of a window.
    private let regionDigests: Scratch<UInt8>
    /// One digest and one mark a block of a region.
    let blockDigests: Scratch<UInt8>
    let zeroBlocks: Scratch<Bool>
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
        while true {
            let windows = pass.nextGroup()
            guard let first = windows.first else { return }
            do throws(IOError) {
                if windows.count == 1 { try process(first) } else { try processTogether(windows) }
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
            try processByDigests([window.range], localIsHole: localIsHole)
        } catch {
            guard error.isMediumError && canDoWithout(error) else { throw error }
            try processByBytes(window)
        }
    }

    /// Compares windows that have data on both sides with one request.
    private mutating func processTogether(_ windows: [Window]) throws(IOError) {
        guard pass.mode != .replace else {
            for window in windows { try fetch(window) }
            return
        }
        do throws(IOError) {
            try processByDigests(windows.map(\.range), localIsHole: false)
        } catch {
            guard error.isMediumError && canDoWithout(error) else { throw error }
            for window in windows { try processByBytes(window) }
        }
    }

    /// Fetches all of a window, whatever is here.
    private mutating func fetch(_ window: Window) throws(IOError) {
        var result = WindowResult(length: window.range.length)
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
        _ ranges: [ByteRange], localIsHole: Bool
    ) throws(IOError) {
        let part = LocalPart(ranges, regions: layout.regions(of: ranges), room: memory.count)
        try hashRegions(of: part, localIsHole: localIsHole)
        let size = part.regions.count * layout.digestSize
        let differences = try channel.compare(
            ranges, digests: UnsafeRawBufferPointer(rebasing: regionDigests.bytes[..<size]))
        var result = WindowResult(length: part.length)
        var found: [Batch] = []
        var batch = Batch()
        var start = 0
        while start < differences.count {
            let end =
                part.isKept ? differences.count : endOfBatch(from: start, differences, part)
            batch = try compareBlocks(differences[start..<end], of: part, localIsHole: localIsHole)
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
        pass.adapt(toDifferent: differences.count * layout.region, of: part.length)
        pass.control.advance(done: part.length, different: result.different)
    }

    /// What is compared with one request.
    struct LocalPart {
        /// Ascending, whole regions but for the end of the last one.
        let ranges: [ByteRange]
        let regions: [ByteRange]
        /// Bytes.
        let length: Int
        /// Whether the local bytes stay in the memory, the ranges one after the other.
        let isKept: Bool

        init(_ ranges: [ByteRange], regions: [ByteRange], room: Int) {
            self.ranges = ranges
            self.regions = regions
            length = ranges.reduce(0) { $0 + $1.length }
            isKept = length <= room
        }
    }

    /// Extents that differ, and where the local bytes of them are.
    struct Batch {
        var extents: [Extent] = []
        /// Ranges that are in the memory one after the other.
        var places: [ByteRange] = []
    }

    /// What a window comes to.
    private struct WindowResult {
        var length: Int
        var extents: [Extent] = []
        var different = 0

        init(length: Int) { self.length = length }

        mutating func add(_ more: [Extent]) {
            extents += more
            different += more.reduce(0) { $0 + $1.range.length }
        }
    }

    private mutating func note(_ result: WindowResult) {
        pass.note(different: result.extents, unreadable: [])
        ownTally.compared += result.length
        ownTally.different += result.different
        for extent in result.extents {
            ownTally.differentBlocks += pass.layout.blocks(in: extent.range)
        }
    }

    /// Reads the local side and computes its digests.
    private mutating func hashRegions(
        of part: LocalPart, localIsHole: Bool
    ) throws(IOError) {
        // In steps that stay in the processor's cache between reading and hashing. What is not kept
        // goes through as little memory as possible.
        let step = max(1, pass.layout.window / layout.region) * layout.region
        var (place, slot) = (0, 0)
        for piece in part.ranges.flatMap({ $0.pieces(of: step) }) {
            let digests = slot..<slot + layout.regions(in: piece) * layout.digestSize
            let slots = UnsafeMutableRawBufferPointer(rebasing: regionDigests.bytes[digests])
            if localIsHole {
                try fillZeroDigests(of: piece, into: slots)
            } else {
                let bytes = UnsafeMutableRawBufferPointer(
                    rebasing: memory[place..<place + piece.length])
                try readAndHash(piece, bytes, into: slots)
            }
            slot = digests.upperBound
            if part.isKept { place += piece.length }
        }
    }

    private mutating func readAndHash(
        _ piece: ByteRange, _ bytes: UnsafeMutableRawBufferPointer,
        into digests: UnsafeMutableRawBufferPointer
    ) throws(IOError) {
        try local.read(into: bytes, at: piece.offset)
        do throws(DigestError) {
            try hasher.regionDigests(
                of: UnsafeRawBufferPointer(bytes), regionSize: layout.region, into: digests)
        } catch {
            throw asIOError(error)
        }
    }

    private mutating func fillZeroDigests(
        of range: ByteRange, into digests: UnsafeMutableRawBufferPointer
    ) throws(IOError) {
        let size = layout.digestSize
        if zeroDigest.isEmpty { zeroDigest = try digestOfZeros(layout.region) }
        for index in 0..<layout.regions(in: range) {
            let region = layout.region(index, of: range)
            let digest =
                region.length == layout.region ? zeroDigest : try digestOfZeros(region.length)
            UnsafeMutableRawBufferPointer(rebasing: digests[(index * size)...])
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

    func asIOError(_ error: DigestError) -> IOError {
        IOError(local.name, error.operation, reason: error.reason)
    }

    /// How many of the regions that differ fit in the memory together.
    private func endOfBatch(
        from start: Int, _ differences: [RegionDifference], _ part: LocalPart
    ) -> Int {
        var room = memory.count
        var end = start
        while end < differences.count {
            let length = part.regions[differences[end].index].length
            if length > room { break }
            room -= length
            end += 1
        }
        return end
    }
}
