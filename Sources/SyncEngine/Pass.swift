// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import LinuxIO
internal import Synchronization

/// One pass over two devices: compares them and, where it may, makes the target equal.
///
/// The workers share the cursor and the result, each under its own lock; all else is theirs alone.
final class Pass: Sendable {
    enum Mode: Hashable {
        /// Nothing is written.
        case compare
        /// What differs is written.
        case update
        /// Everything is written, without a look at the target.
        case replace
    }

    let source: any BlockDevice
    let target: any BlockDevice
    let mode: Mode
    let layout: BlockLayout
    let skipsUnreadable: Bool
    let control: RunControl

    /// What a pass ends with.
    struct Result: Sendable {
        var tally = Tally()
        /// The first extents that differ; some more than a person reads, since the windows they are
        /// joined from are finished in any order.
        var differences = LowestRanges(limit: 64)
        /// What of the source could not be read: enough to work on, too few to fill the memory.
        var unreadable = LowestRanges(limit: 10_000)
        /// The error that ended it early.
        var failure: IOError?
    }
    private let cursor: Mutex<WindowCursor>
    private let result = Mutex(Result())
    private let isStopped = Atomic(false)

    /// Prepares a pass.
    ///
    /// - Parameters:
    ///   - source: what is read.
    ///   - target: what is compared and written, at least as large.
    ///   - length: how many bytes of them.
    ///   - mode: what may be done to the target.
    ///   - options: block size and what to do about bad blocks.
    ///   - control: told of progress, asked whether to go on.
    init(
        source: any BlockDevice, target: any BlockDevice, length: Int, mode: Mode,
        options: SyncOptions, control: RunControl
    ) {
        self.source = source
        self.target = target
        self.mode = mode
        layout = options.layout
        skipsUnreadable = options.skipsUnreadable
        self.control = control
        cursor = Mutex(
            WindowCursor(
                source: source, target: target, length: length, windowSize: layout.window,
                holeSize: mode == .replace ? Self.longestHole : layout.window))
    }

    /// Bytes that are zeroed in one call at most, so that an interrupt does not wait long.
    private static let longestHole = 64 << 20

    /// Works through all windows.
    ///
    /// - Parameter concurrency: how many threads.
    /// - Returns: what was found and done.
    func run(concurrency: Int) -> Result {
        // One piece of memory for all, so that it can consist of huge pages.
        let memory = AlignedBuffer(count: concurrency * Worker.memory(for: layout))
        let bytes = UncheckedBytes(memory.bytes)
        Threads.start(count: concurrency) { index in
            var worker = Worker(
                self, memory: bytes.part(index, size: Worker.memory(for: self.layout)))
            worker.run()
            let tally = worker.tally
            self.result.withLock { $0.tally.merge(tally) }
        }.wait()
        return result.withLock { $0 }
    }

    /// The next window; `nil` at the end, or when the pass is to stop.
    func next() -> Window? {
        if isStopped.load(ordering: .relaxed) || control.isCancelled { return nil }
        do throws(IOError) {
            let (window, skipped) = try cursor.withLock { cursor throws(IOError) in
                try cursor.next()
            }
            if skipped > 0 {
                control.advance(done: skipped, different: 0)
                result.withLock { $0.tally.compared += skipped }
            }
            return window
        } catch {
            fail(error)
            return nil
        }
    }

    /// Keeps where a window differs and what of it could not be read.
    func note(different extents: [Extent], unreadable ranges: [ByteRange]) {
        if extents.isEmpty && ranges.isEmpty { return }
        result.withLock { result in
            for extent in extents { result.differences.insert(extent.range) }
            for range in ranges { result.unreadable.insert(range) }
        }
    }

    /// Ends the pass; the first reason is kept.
    func fail(_ error: IOError) {
        isStopped.store(true, ordering: .relaxed)
        result.withLock { if $0.failure == nil { $0.failure = error } }
    }
}

/// Memory that several threads use, each its own part.
private struct UncheckedBytes: @unchecked Sendable {
    private let bytes: UnsafeMutableRawBufferPointer

    init(_ bytes: UnsafeMutableRawBufferPointer) { self.bytes = bytes }

    /// One of the parts of a size.
    func part(_ index: Int, size: Int) -> UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(rebasing: bytes[index * size..<(index + 1) * size])
    }
}
