// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import ArgumentParser
internal import BlockDevices
internal import BlockReplication
internal import LinuxIO

/// The blocks that a benchmark changes in each step; whole blocks make the difference exact.
struct ChangePlan {
    enum Pattern: String, CaseIterable, ExpressibleByArgument {
        /// At the start, one after the other.
        case sequential
        /// Anywhere, in single blocks, as databases change them.
        case random
    }

    /// The number of steps; the last one changes everything.
    var steps: Int
    var pattern: Pattern
    /// The seed of the random choice.
    var seed: UInt64
    /// Bytes of the source.
    var size: Int
    /// Bytes.
    var block: Int

    func percent(_ step: Int) -> Double { 100 * Double(step) / Double(steps) }

    /// Returns the runs of blocks that a step from 1 to `steps` changes, the same ones for each
    /// call.
    ///
    /// They are ascending, and at most `ChangedRuns.limit` long.
    func runs(_ step: Int) -> ChangedRuns {
        let total = (size + block - 1) / block
        let count = max(1, (total * step + steps / 2) / steps)
        return ChangedRuns(
            size: size, block: block, total: total, count: count,
            random: pattern == .random
                ? SplitMix64(seed: seed &+ UInt64(step) &* 0xD1B5_4A32_D192_ED03) : nil)
    }
}

/// Chosen blocks of a device as runs of adjacent blocks; each block is chosen at most once.
struct ChangedRuns: Sequence, IteratorProtocol {
    private let size: Int
    private let block: Int
    private let total: Int
    private var random: SplitMix64?
    /// The next candidate.
    private var position = 0
    private var left: Int
    /// The block after the last chosen one.
    private var runEnd = 0

    /// Maximum length of a run in bytes, rounded up to a block.
    static let limit = 1 << 20

    fileprivate init(size: Int, block: Int, total: Int, count: Int, random: SplitMix64?) {
        self.size = size
        self.block = block
        self.total = total
        self.random = random
        left = count
    }

    mutating func next() -> ByteRange? {
        guard left > 0 else { return nil }
        while !takesNext() {}
        let start = position - 1
        while left > 0, (position - start) * block < Self.limit, takesNext() {}
        // The last candidate may not have been chosen.
        return ByteRange(start * block, to: Swift.min(runEnd * block, size))
    }

    /// Decides about one candidate.
    ///
    /// This is selection sampling: each set of blocks is equally likely, and no set is kept in
    /// memory (D. Knuth, The Art of Computer Programming, volume 2, 3.4.2, algorithm S).
    private mutating func takesNext() -> Bool {
        let rest = UInt64(total - position)
        position += 1
        if random != nil {
            guard let number = random?.next(below: rest), number < left else { return false }
        }
        left -= 1
        runEnd = position
        return true
    }
}

extension SplitMix64 {
    fileprivate mutating func next(below bound: UInt64) -> UInt64 {
        UInt64.random(in: 0..<bound, using: &self)
    }
}

/// Inverts every bit of some runs of a device, so that each byte differs, and flushes it.
///
/// - Parameter runs: ascending; the last one may end within a block.
/// - Returns: the number of changed bytes, fewer if `isCancelled` ended the work.
/// - Throws: the device's error. Any part of the runs may have been changed.
func invert(
    _ runs: ChangedRuns, of device: any BlockDevice, block: Int, unless isCancelled: () -> Bool
) throws(IOError) -> Int {
    let buffer = AlignedBuffer(count: max(2 * ChangedRuns.limit, 2 * block))
    var runs = runs
    var waiting = runs.next()
    var changed = 0
    while waiting != nil, !isCancelled() {
        var transfers: [Transfer] = []
        var used = 0
        while let run = waiting, used + run.length <= buffer.count {
            let memory = slice(buffer.bytes, used, used + run.length)
            transfers.append(Transfer(into: memory, at: run.offset))
            used += run.length
            waiting = runs.next()
        }
        try device.read(transfers)
        // Only the last run may end within a word. The memory after it belongs to the buffer.
        for place in stride(from: 0, to: used, by: 8) {
            let old = buffer.bytes.load(fromByteOffset: place, as: UInt64.self)
            buffer.bytes.storeBytes(of: ~old, toByteOffset: place, as: UInt64.self)
        }
        for (transfer, isDone) in zip(transfers, device.attempt(transfers, .write)) where !isDone {
            try device.write(UnsafeRawBufferPointer(transfer.memory), at: transfer.offset)
        }
        changed += used
    }
    try device.flush()
    return changed
}
