// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import Digests
internal import LinuxIO
internal import SyncEngine
internal import Synchronization
internal import WireProtocol

/// Computes the hash tree of a device into a file, in one pass and with constant memory.
///
/// Threads take windows. Each writes the digests of its window's blocks, which fill whole blocks of
/// the lowest level, and the digests of these blocks to the level above. The other levels follow at
/// the end; they are less than a 16000th of the device.
final class VerityBuilder: Sendable {
    /// Bytes; the blocks of the lowest level in a window are whole.
    private static let window = 1 << 20

    private struct State {
        var position = 0
        var run: ByteRange?
        var isEmptyBehind = false
        var failure: IOError?
        var tail: [UInt8]?
        /// If the device has one block.
        var only: [UInt8]?
    }

    private let device: any BlockDevice
    private let draft: DraftFile
    private let shape: VerityShape
    private let control: RunControl
    private let state = Mutex(State())

    init(_ device: any BlockDevice, _ shape: VerityShape, _ draft: DraftFile, _ control: RunControl)
    {
        self.device = device
        self.shape = shape
        self.draft = draft
        self.control = control
    }

    /// - Throws: also `cancelled`.
    func run(threads: Int) throws(IOError) -> VerityDigests {
        control.begin(.compare, total: shape.size)
        let room = Self.window
        guard let memory = AlignedBuffer(ifAvailable: threads * room) else {
            throw Memory.error(device.name, "digest", threads * room)
        }
        let buffers = ThreadBuffers(memory, size: room)
        Threads.start(count: threads) { index in
            do throws(IOError) { try self.work(buffers.part(index)) } catch { self.fail(error) }
        }.wait()
        let state = state.withLock { $0 }
        if let failure = state.failure { throw failure }
        if control.isCancelled { throw cancelled }
        // Without a level, the device has one block or none.
        let root =
            shape.levels.isEmpty ? state.only ?? Self.noDigest : try upperLevels()
        return VerityDigests(root: root, tail: state.tail)
    }

    private static let noDigest = [UInt8](repeating: 0, count: VerityShape.digest)

    private var cancelled: IOError {
        var error = IOError(device.name, "digest", reason: "interrupted, nothing was written")
        error.kind = .cancelled
        return error
    }

    private func fail(_ error: IOError) {
        state.withLock { if $0.failure == nil { $0.failure = error } }
    }

    /// The next window, and whether the device has only zeros there; `nil` at the end.
    private func next() throws(IOError) -> (ByteRange, isHole: Bool)? {
        try state.withLock { state throws(IOError) in
            let start = state.position
            guard state.failure == nil, !control.isCancelled, start < shape.size else { return nil }
            let range = ByteRange(start, to: min(start + Self.window, shape.size))
            if !state.isEmptyBehind, state.run?.end ?? 0 <= start {
                state.run = try device.nextData(from: start)
                state.isEmptyBehind = state.run == nil
            }
            state.position = range.end
            return (range, !(state.run?.overlaps(range) ?? false))
        }
    }

    private func work(_ memory: UnsafeMutableRawBufferPointer) throws(IOError) {
        let method = try DigestMethod(named: "sha256")
        var windows = try WindowHasher(
            BlockLayout(block: VerityShape.block, region: VerityShape.block), window: Self.window,
            method, key: nil)
        var hasher = try BlockHasher(method, key: nil)
        let block = VerityShape.block
        // The digests of a window, as blocks of the lowest level, and theirs.
        let room = Self.window / block * VerityShape.digest
        let above = room / block * VerityShape.digest
        let tree = UnsafeMutableRawBufferPointer.allocate(byteCount: room + above, alignment: 8)
        defer { tree.deallocate() }
        while let (range, isHole) = try next() {
            try windows.hashRegions(of: range, on: device, isHole: isHole, memory: memory)
            let count = range.length / block * VerityShape.digest
            if range.length % block > 0 {
                let tail = Array(slice(windows.regionDigests, count, count + VerityShape.digest))
                state.withLock { $0.tail = tail }
            }
            if shape.levels.isEmpty {
                if count > 0 {
                    let only = Array(slice(windows.regionDigests, 0, count))
                    state.withLock { $0.only = only }
                }
            } else if count > 0 {
                let lowest = slice(tree, 0, count.roundedUp(to: block))
                lowest.initializeMemory(as: UInt8.self, repeating: 0)
                lowest.copyMemory(
                    from: UnsafeRawBufferPointer(slice(windows.regionDigests, 0, count)))
                let first = range.offset / block
                try draft.write(
                    UnsafeRawBufferPointer(lowest), at: shape.place(ofDigest: first, level: 0))
                try writeDigests(
                    of: UnsafeRawBufferPointer(lowest), first / VerityShape.digestsInBlock,
                    level: 0, &hasher, slice(tree, room, room + above))
            }
            control.advance(done: range.length, different: 0)
        }
    }

    /// Writes the digests of whole blocks of a level to the one above, if there is one.
    ///
    /// - Parameter first: the number of the first block within its level.
    private func writeDigests(
        of blocks: UnsafeRawBufferPointer, _ first: Int, level: Int, _ hasher: inout BlockHasher,
        _ memory: UnsafeMutableRawBufferPointer
    ) throws(IOError) {
        guard level + 1 < shape.levels.count else { return }
        let digests = slice(memory, 0, blocks.count / VerityShape.digestsInBlock)
        try hasher.regionDigests(of: blocks, regionSize: VerityShape.block, into: digests)
        try draft.write(
            UnsafeRawBufferPointer(digests), at: shape.place(ofDigest: first, level: level + 1))
    }

    /// Computes the levels above the second one, and returns the root hash.
    private func upperLevels() throws(IOError) -> [UInt8] {
        var hasher = try BlockHasher(DigestMethod(named: "sha256"), key: nil)
        let memory = AlignedBuffer(count: Self.window + Self.window / VerityShape.digestsInBlock)
        let digests = slice(memory.bytes, Self.window, memory.count)
        for level in shape.levels.indices.dropFirst() {
            for piece in shape.levels[level].pieces(of: Self.window) {
                if control.isCancelled { throw cancelled }
                let blocks = slice(memory.bytes, 0, piece.length)
                try draft.read(into: blocks, at: piece.offset)
                let first = (piece.offset - shape.levels[level].offset) / VerityShape.block
                try writeDigests(
                    of: UnsafeRawBufferPointer(blocks), first, level: level, &hasher, digests)
            }
        }
        let top = slice(memory.bytes, 0, VerityShape.block)
        try draft.read(into: top, at: VerityShape.block)
        return try sha256(of: UnsafeRawBufferPointer(top))
    }
}

/// Memory for all threads, each of which uses its own part.
private final class ThreadBuffers: Sendable {
    private let buffer: AlignedBuffer
    private let size: Int

    init(_ buffer: consuming AlignedBuffer, size: Int) {
        self.buffer = buffer
        self.size = size
    }

    func part(_ index: Int) -> UnsafeMutableRawBufferPointer {
        slice(buffer.bytes, index * size, (index + 1) * size)
    }
}
