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
    /// Most of the last window differed: the next ones are short enough to be kept in memory, and so
    /// are the first ones.
    private let isDense = Atomic(true)
    private let comparesByDigests: Bool

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
        // Without comparing there are no digests; but what is fetched goes the same way.
        let isRemote = source is any RemoteDevice || target is any RemoteDevice
        comparesByDigests = source is any RemoteDevice || (isRemote && mode != .replace)
        let window = isRemote && mode != .replace ? layout.remoteWindow : layout.window
        cursor = Mutex(
            WindowCursor(
                source: source, target: target, length: length, windowSize: window,
                holeSize: mode == .replace ? Self.longestHole : window,
                changes: options.changes?.filter { $0.offset < length }
                    .rounded(to: layout.region, limit: length)))
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
            let part = bytes.part(index, size: Worker.memory(for: self.layout))
            let tally = self.comparesByDigests ? self.workByDigests(part) : self.work(part)
            self.result.withLock { $0.tally.merge(tally) }
        }.wait()
        return result.withLock { $0 }
    }

    private func work(_ memory: UnsafeMutableRawBufferPointer) -> Tally {
        var worker = Worker(self, memory: memory)
        worker.run()
        return worker.tally
    }

    private func workByDigests(_ memory: UnsafeMutableRawBufferPointer) -> Tally {
        do throws(IOError) {
            var worker = try DigestWorker(self, memory: memory)
            worker.run()
            return worker.tally
        } catch {
            fail(error)
            return Tally()
        }
    }

    /// Whether it ends early, and nothing more is to be begun.
    var isStopping: Bool { isStopped.load(ordering: .relaxed) || control.isCancelled }

    /// The next window; `nil` at the end, or when the pass is to stop.
    func next() -> Window? {
        if isStopping { return nil }
        do throws(IOError) {
            let (window, skipped, unchanged) = try cursor.withLock { cursor throws(IOError) in
                try cursor.next()
            }
            leaveOut(skipped, unchanged)
            return window
        } catch {
            fail(error)
            return nil
        }
    }

    /// The next windows for a worker that compares by digests; none at the end, or when the pass is
    /// to stop.
    func nextGroup() -> [Window] {
        if isStopping { return [] }
        let length = isDense.load(ordering: .relaxed) ? layout.denseWindow : nil
        do throws(IOError) {
            let (windows, skipped, unchanged) = try cursor.withLock { cursor throws(IOError) in
                try cursor.nextGroup(length: length)
            }
            leaveOut(skipped, unchanged)
            return windows
        } catch {
            fail(error)
            return []
        }
    }

    /// Counts what needs no work: bytes without data, and bytes that are known to be equal.
    private func leaveOut(_ skipped: Int, _ unchanged: Int) {
        guard skipped + unchanged > 0 else { return }
        control.advance(done: skipped + unchanged, different: 0)
        result.withLock { result in
            result.tally.compared += skipped
            result.tally.unchanged += unchanged
        }
    }

    /// Takes note of how much of a window that was compared by digests differs.
    func adapt(toDifferent different: Int, of length: Int) {
        isDense.store(different > length / 4, ordering: .relaxed)
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
