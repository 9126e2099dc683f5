// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import Digests
internal import LinuxIO

/// One thread's share of a pass in which one side is on another machine.
///
/// The worker hashes the local side. The server answers with the regions that differ and their
/// block digests. The worker sends or fetches the blocks that differ. A window that does not fit in
/// memory is hashed in steps that fit in the processor's caches, and its differing regions are read
/// again. If they are many, the pass makes the windows shorter.
struct DigestWorker: ~Copyable {
    var ownTally = Tally()
    let pass: Pass
    private let index: Int
    let local: any BlockDevice
    let remote: any RemoteDevice
    let channel: any RemoteChannel
    /// Whether the remote side is the target.
    let isPush: Bool
    var hasher: WindowHasher
    let memory: UnsafeMutableRawBufferPointer
    /// Processes remote holes and the surroundings of bad sectors, without digests.
    private var byBytes: Worker

    /// - Parameters:
    ///   - pass: one of its devices is remote.
    ///   - index: of the thread, from 0.
    ///   - memory: at least `Worker.memory(for:)`, aligned for the local device.
    init(_ pass: Pass, _ index: Int, memory: UnsafeMutableRawBufferPointer) throws(IOError) {
        guard let remote = pass.target.remote ?? pass.source.remote else {
            preconditionFailure("both devices are local")
        }
        hasher = try WindowHasher(
            pass.layout, window: pass.layout.remoteWindow, remote.digestMethod,
            key: remote.digestKey)
        isPush = pass.target.isRemote
        local = isPush ? pass.source : pass.target
        self.pass = pass
        self.index = index
        self.memory = memory
        self.remote = remote
        channel = remote.openChannel()
        byBytes = Worker(pass, index, memory: memory)
    }

    var layout: BlockLayout { pass.layout }

    var tally: Tally {
        var sum = ownTally
        sum.merge(byBytes.tally)
        return sum
    }

    mutating func run() {
        while true {
            let windows = pass.nextGroup(for: index)
            guard let first = windows.first else { return }
            let before = pass.recordsDone ? tally : Tally()
            do throws(IOError) {
                if windows.count == 1 { try process(first) } else { try processTogether(windows) }
                pass.note(windows, from: before, to: tally)
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
            let end = min(offset + layout.window, window.range.end)
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
        pass.control.advance(done: part.length, different: attempt.result.different)
    }

    /// - Parameters:
    ///   - localIsHole: whether the local side has only zeros there.
    ///   - checks: refuses data that does not match the server's comparison.
    mutating func compareAndMove(
        _ part: LocalPart, localIsHole: Bool, checks: Bool = true
    ) throws(IOError) -> (end: End, result: WindowResult) {
        try hashRegions(of: part, localIsHole: localIsHole)
        let size = part.regions.count * hasher.digestSize
        let begin = ContinuousClock.now
        let differences = try channel.compare(
            part.ranges, digests: UnsafeRawBufferPointer(slice(hasher.regionDigests, 0, size)))
        pass.adapt(
            toDifferent: differences.count * layout.region, of: part.length,
            comparison: (ContinuousClock.now - begin) / .seconds(1))
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
                guard push(batch) else { return (.stopped, result) }
                found.removeAll()
            }
        }
        if pass.mode != .compare && !isPush {
            let compared = checks && channel.comparesAgain ? ComparedBlocks(differences, part) : nil
            for batch in found {
                let end = try pull(batch.extents, as: compared)
                guard end == .done else { return (end, result) }
            }
        }
        return (.done, result)
    }

    private mutating func note(_ result: WindowResult) {
        pass.note(different: result.extents, unreadable: [])
        ownTally.compared += result.length
        ownTally.different += result.different
        for extent in result.extents {
            ownTally.differentBlocks += layout.blocks(in: extent.range)
        }
    }

    /// Bytes that are not kept go through as little memory as possible.
    private mutating func hashRegions(
        of part: LocalPart, localIsHole: Bool
    ) throws(IOError) {
        var (place, slot) = (0, 0)
        for piece in part.ranges.flatMap({ $0.pieces(of: layout.window) }) {
            try hasher.hashRegions(
                of: piece, on: local, isHole: localIsHole,
                memory: slice(memory, place, memory.count), slot: slot)
            slot += layout.regions(of: [piece]).count
            if part.isKept { place += piece.length }
        }
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
