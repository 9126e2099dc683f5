// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import Digests
internal import LinuxIO
internal import WireProtocol

/// One thread's share of a pass in which one side is on another machine.
///
/// The worker hashes the local side. The server answers with the regions that differ and their
/// block digests. The worker sends or fetches the blocks that differ. A window that does not fit in
/// memory is hashed in steps that fit in the processor's caches, and its differing regions are read
/// again. If they are many, the pass makes the windows shorter.
struct DigestWorker: ~Copyable {
    var ownTally = Tally()
    let pass: Pass
    let layout: WireLayout
    let local: any BlockDevice
    let channel: any RemoteChannel
    /// Bytes of data.
    let requestLimit: Int
    /// Whether the remote side is the target.
    let isPush: Bool
    var hasher: BlockHasher
    let memory: UnsafeMutableRawBufferPointer
    /// Processes remote holes and the surroundings of bad sectors, without digests.
    private var byBytes: Worker

    /// One digest for each region of a window.
    private let regionDigests: Scratch<UInt8>
    /// One digest and one flag for each block of a region.
    let blockDigests: Scratch<UInt8>
    let zeroBlocks: Scratch<Bool>
    /// The digest of a whole region of zeros.
    private var zeroDigest: [UInt8]

    /// - Parameters:
    ///   - pass: one of its devices is remote.
    ///   - memory: at least `Worker.memory(for:)`, aligned for the local device.
    init(_ pass: Pass, memory: UnsafeMutableRawBufferPointer) throws(IOError) {
        guard let remote = pass.target.remote ?? pass.source.remote else {
            preconditionFailure("both devices are local")
        }
        let layout = try Self.layout(of: pass, digests: remote)
        let hasher = try BlockHasher(remote.digestMethod, key: remote.digestKey)
        self.layout = layout
        self.hasher = hasher
        isPush = pass.target.isRemote
        local = isPush ? pass.source : pass.target
        self.pass = pass
        self.memory = memory
        channel = remote.openChannel()
        requestLimit = remote.requestLimit
        byBytes = Worker(pass, memory: memory)
        let blocks = layout.region / layout.block
        let size = layout.digestSize
        regionDigests = Scratch(count: pass.layout.remoteWindow / layout.region * size, of: 0)
        blockDigests = Scratch(count: blocks * size, of: 0)
        zeroBlocks = Scratch(count: blocks, of: false)
        zeroDigest = []
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

    var tally: Tally {
        var sum = ownTally
        sum.merge(byBytes.tally)
        return sum
    }

    mutating func run() {
        while true {
            let windows = pass.nextGroup()
            guard let first = windows.first else { return }
            do throws(IOError) {
                if windows.count == 1 { try process(first) } else { try processTogether(windows) }
            } catch {
                // A user who cancels waits neither for a bad block nor for a lost server.
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

    /// Compares windows with data on both sides in one request.
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

    private mutating func fetch(_ window: Window) throws(IOError) {
        var result = WindowResult(length: window.range.length)
        let extents = [Extent(window.range, .data)]
        result.add(extents)
        do throws(IOError) {
            let end = try pull(extents, as: nil, targetIsZero: window.targetIsHole)
            guard end == .done else { return }
        } catch {
            guard error.isMediumError && pass.skipsUnreadable else { throw error }
            return try processByBytes(window)
        }
        note(result)
        pass.control.advance(done: window.range.length, different: result.different)
    }

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
        var attempt = try compareAndMove(part, localIsHole: localIsHole)
        if attempt.end == .changed { attempt.end = try moveAgain(part) }
        guard attempt.end == .done else { return }
        // Only a finished window counts.
        note(attempt.result)
        if isPush || !localIsHole { ownTally.targetRead += part.length }
        pass.adapt(toDifferent: attempt.regions * layout.region, of: part.length)
        pass.control.advance(done: part.length, different: attempt.result.different)
    }

    /// - Parameters:
    ///   - localIsHole: whether the local side has only zeros there.
    ///   - checks: refuses data that does not match the server's comparison.
    /// - Returns: also the number of regions that differ.
    mutating func compareAndMove(
        _ part: LocalPart, localIsHole: Bool, checks: Bool = true
    ) throws(IOError) -> (end: End, result: WindowResult, regions: Int) {
        try hashRegions(of: part, localIsHole: localIsHole)
        let size = part.regions.count * layout.digestSize
        let differences = try channel.compare(
            part.ranges, digests: UnsafeRawBufferPointer(rebasing: regionDigests.bytes[..<size]))
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
            // Send before the next regions overwrite the memory.
            if pass.mode != .compare && isPush {
                guard push(batch) else { return (.stopped, result, differences.count) }
                found.removeAll()
            }
        }
        if pass.mode != .compare && !isPush {
            let compared = checks && channel.comparesAgain ? ComparedBlocks(differences, part) : nil
            for batch in found {
                let end = try pull(batch.extents, as: compared)
                guard end == .done else { return (end, result, differences.count) }
            }
        }
        return (.done, result, differences.count)
    }

    private mutating func note(_ result: WindowResult) {
        pass.note(different: result.extents, unreadable: [])
        ownTally.compared += result.length
        ownTally.different += result.different
        for extent in result.extents {
            ownTally.differentBlocks += pass.layout.blocks(in: extent.range)
        }
    }

    private mutating func hashRegions(
        of part: LocalPart, localIsHole: Bool
    ) throws(IOError) {
        // Each step stays in the processor's cache between reading and hashing. Bytes that are not
        // kept go through as little memory as possible.
        let step = max(1, pass.layout.window / layout.region) * layout.region
        var (place, slot) = (0, 0)
        for piece in part.ranges.flatMap({ $0.pieces(of: step) }) {
            let digests = slot..<slot + layout.regions(in: piece) * layout.digestSize
            let slots = UnsafeMutableRawBufferPointer(rebasing: regionDigests.bytes[digests])
            if localIsHole {
                try fillZeroDigests(of: piece, into: slots)
            } else {
                try readAndHash(piece, slice(memory, place, place + piece.length), into: slots)
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
        try hasher.regionDigests(
            of: UnsafeRawBufferPointer(bytes), regionSize: layout.region, into: digests)
    }

    private mutating func fillZeroDigests(
        of range: ByteRange, into digests: UnsafeMutableRawBufferPointer
    ) throws(IOError) {
        if zeroDigest.isEmpty { zeroDigest = try hasher.digest(ofZeros: layout.region) }
        try hasher.regionDigests(
            ofZeros: range.length, regionSize: layout.region, whole: zeroDigest, into: digests)
    }

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
