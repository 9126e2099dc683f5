// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import LinuxIO
internal import Synchronization

/// Compares two devices in one pass and, depending on the mode, makes the target equal.
///
/// The workers share the cursor and the result, each under its own lock. All other state belongs to
/// one worker.
final class Pass: Sendable {
    enum Mode: Hashable {
        case compare
        case update
        /// Writes everything and reads nothing of the target.
        case replace
    }

    let source: any BlockDevice
    let target: any BlockDevice
    let mode: Mode
    let layout: BlockLayout
    let skipsUnreadable: Bool
    let control: RunControl

    struct Result: Sendable {
        var tally = Tally()
        /// More than a person reads, because windows finish in any order and are joined later.
        var differences = LowestRanges(limit: 64)
        /// Limited to save memory.
        var unreadable = LowestRanges(limit: 10_000)
        /// What was processed completely, if that is recorded.
        var done = DoneRanges()
        var failure: IOError?
    }
    let recordsDone: Bool
    private let cursor: Mutex<WindowCursor>
    private let result = Mutex(Result())
    private let isStopped = Atomic(false)
    /// Whether more than a quarter of the last window differed.
    ///
    /// The next windows are then short enough to be kept in memory. So are the first ones, except
    /// on a long line, where each round of comparisons takes a round trip.
    private let isDense: Atomic<Bool>
    private let comparesByDigests: Bool
    private let remote: (any RemoteDevice)?
    /// The source, if it is read only once.
    let stream: StreamSource?
    private let usual: Int
    /// Set if the line is long.
    private let choice: Guarded<WorkerChoice>?

    /// - Parameters:
    ///   - target: at least as large as `length`.
    ///   - length: bytes of both devices.
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
        recordsDone = options.recordsDone
        // A whole-file copy compares no digests, but it fetches in the same way.
        let isRemote = source.isRemote || target.isRemote
        comparesByDigests = source.isRemote || (isRemote && mode != .replace)
        remote = source.remote ?? target.remote
        stream = source as? StreamSource
        usual = options.concurrency
        let isLong = remote?.longRoundTrip != nil
        isDense = Atomic(!isLong)
        choice =
            isLong
            ? Guarded(
                WorkerChoice(
                    usual: usual, most: options.mostConcurrency, compares: mode != .replace))
            : nil
        let copied = isLong ? layout.denseWindow : layout.window
        let window = isRemote && mode != .replace ? layout.remoteWindow : copied
        cursor = Mutex(
            WindowCursor(
                source: source, target: target, length: length, windowSize: window,
                holeSize: mode == .replace ? Self.longestHole : window,
                changes: options.changes?.filter { $0.offset < length }
                    .rounded(to: layout.region, limit: length)))
    }

    /// Bytes that one call zeroes at most, so that an interrupt does not wait long.
    private static let longestHole = 64 << 20

    func run() -> Result {
        let own = Worker.memory(for: layout)
        // Fewer threads do all the work, but more slowly.
        var count = choice?.withLock { $0.most } ?? usual
        if !Memory.has(count * (own + overhead) + Self.reserve) { count = usual }
        while count > 1, !Memory.has(count * (own + overhead) + Self.reserve) { count = count / 2 }
        // A single allocation for all threads can use huge pages.
        guard Memory.has(count * (own + overhead) + Self.reserve),
            let memory = AlignedBuffer(ifAvailable: count * own)
        else {
            fail(Memory.error(target.name, phaseName, own + overhead + Self.reserve))
            return result.withLock { $0 }
        }
        let buffer = ThreadMemory(memory)
        Threads.start(count: count) { index in
            let part = buffer.part(index, size: Worker.memory(for: self.layout))
            let tally =
                self.comparesByDigests ? self.workByDigests(index, part) : self.work(index, part)
            self.result.withLock { $0.tally.merge(tally) }
        }.wait()
        return result.withLock { $0 }
    }

    /// Bytes of a thread besides its buffers: its stack, and for a server libcurl and the messages.
    private var overhead: Int {
        (8 << 20) + (source.isRemote || target.isRemote ? 12 << 20 : 0)
            + (stream == nil ? 0 : layout.denseWindow)
    }

    /// Bytes for everything else.
    private static let reserve = 4 << 20

    private var phaseName: String { mode == .compare ? "compare" : "sync" }

    private func work(_ index: Int, _ memory: UnsafeMutableRawBufferPointer) -> Tally {
        var worker = Worker(self, index, memory: memory)
        worker.run()
        return worker.tally
    }

    private func workByDigests(_ index: Int, _ memory: UnsafeMutableRawBufferPointer) -> Tally {
        do throws(IOError) {
            // One that may never work needs no connection and no memory.
            awaitTurn(of: index)
            var worker = try DigestWorker(self, index, memory: memory)
            worker.run()
            return worker.tally
        } catch {
            fail(error)
            return Tally()
        }
    }

    var isStopping: Bool { isStopped.load(ordering: .relaxed) || control.isCancelled }

    /// Waits until a thread is among those that take windows, or there is none any more.
    private func awaitTurn(of index: Int) {
        guard let choice, index >= usual else { return }
        // The user's signal does not wake this thread, so it looks for itself.
        while !isStopping,
            choice.wait(until: .now + .milliseconds(200), { $0.takesWindows(index) ? () : nil })
                == nil
        {}
    }

    /// The next window; `nil` at the end, or if the pass is stopping.
    func next(for index: Int) -> Window? {
        awaitTurn(of: index)
        if isStopping { return nil }
        if let stream { return nextWindow(of: stream, index, layout.window) }
        do throws(IOError) {
            let (window, skipped, unchanged) = try cursor.withLock { cursor throws(IOError) in
                let next = try cursor.next()
                noteHoles(cursor.takeSkipped())
                return next
            }
            leaveOut(skipped, unchanged)
            if window == nil { choice?.withLock { $0.end() } }
            return window
        } catch {
            fail(error)
            return nil
        }
    }

    /// The next windows for one request; empty at the end, or if the pass is stopping.
    func nextGroup(for index: Int) -> [Window] {
        awaitTurn(of: index)
        if isStopping { return [] }
        if let stream {
            return nextWindow(of: stream, index, layout.denseWindow).map { [$0] } ?? []
        }
        let length = isDense.load(ordering: .relaxed) ? layout.denseWindow : nil
        do throws(IOError) {
            let (windows, skipped, unchanged) = try cursor.withLock { cursor throws(IOError) in
                let next = try cursor.nextGroup(length: length)
                noteHoles(cursor.takeSkipped())
                return next
            }
            leaveOut(skipped, unchanged)
            if windows.isEmpty { choice?.withLock { $0.end() } }
            return windows
        } catch {
            fail(error)
            return []
        }
    }

    /// Loads the next window of a stream, and extends an image that it does not fit into.
    private func nextWindow(of stream: StreamSource, _ index: Int, _ length: Int) -> Window? {
        do throws(IOError) {
            let window = try cursor.withLock { cursor throws(IOError) -> Window? in
                guard !isStopping,
                    let range = try stream.load(length, for: index, unless: { isStopping })
                else { return nil }
                if mode != .compare, range.end > target.geometry.size {
                    try target.resize(to: range.end)
                }
                return try cursor.window(of: range)
            }
            if window == nil { choice?.withLock { $0.end() } }
            if window != nil { try stream.keepDigest(of: index) }
            return window
        } catch {
            fail(error)
            return nil
        }
    }

    /// Counts holes on both sides, and bytes that the change map excludes.
    private func leaveOut(_ skipped: Int, _ unchanged: Int) {
        guard skipped + unchanged > 0 else { return }
        control.advance(done: skipped + unchanged, different: 0)
        result.withLock { result in
            result.tally.compared += skipped
            result.tally.unchanged += unchanged
        }
    }

    private func noteHoles(_ ranges: [ByteRange]) {
        guard recordsDone, !ranges.isEmpty else { return }
        result.withLock { for range in ranges { $0.done.insert(range) } }
    }

    /// Records windows as done, if a thread's figures from before and after prove that.
    ///
    /// A window that was left early, was not written completely, or has unreadable bytes, is not
    /// done. Nor is any after an error that ended the pass: some of these are not counted, such as
    /// one of the undo journal.
    func note(_ windows: [Window], from before: Tally, to after: Tally) {
        guard recordsDone, !isStopped.load(ordering: .relaxed) else { return }
        let length = windows.reduce(0) { $0 + $1.range.length }
        guard after.compared - before.compared == length,
            after.writeErrorCount == before.writeErrorCount, after.unreadable == before.unreadable
        else { return }
        result.withLock { for window in windows { $0.done.insert(window.range) } }
    }

    /// Adapts windows and threads to a comparison.
    ///
    /// - Parameters:
    ///   - different: bytes of the regions that differ.
    ///   - seconds: of the comparison.
    func adapt(toDifferent different: Int, of length: Int, comparison seconds: Double) {
        let isDense = different > length / 4
        self.isDense.store(isDense, ordering: .relaxed)
        guard !isDense else { return }
        choice?.withLock { $0.note(comparison: seconds, roundTrip: remote?.longRoundTrip) }
    }

    /// Sends or fetches data in one request, and lets its time decide how many threads work.
    func timed<Result>(_ exchange: () throws(IOError) -> Result) throws(IOError) -> Result {
        guard let choice else { return try exchange() }
        choice.wait { $0.beginData() }
        var seconds: Double?
        defer {
            choice.withLock { $0.endData(after: seconds, roundTrip: remote?.longRoundTrip) }
        }
        let start = ContinuousClock.now
        let result = try exchange()
        seconds = (ContinuousClock.now - start) / .seconds(1)
        return result
    }

    func note(different extents: [Extent], unreadable ranges: [ByteRange]) {
        if extents.isEmpty && ranges.isEmpty { return }
        result.withLock { result in
            for extent in extents { result.differences.insert(extent.range) }
            for range in ranges { result.unreadable.insert(range) }
        }
    }

    /// Counts an error of the target, where other places may be writable, or ends the pass.
    func note(writeError error: IOError, in tally: inout Tally) {
        if error.kind == .journal { fail(error) } else { tally.addWriteError(error) }
    }

    /// Ends the pass and keeps the first error.
    func fail(_ error: IOError) {
        isStopped.store(true, ordering: .relaxed)
        result.withLock { if $0.failure == nil { $0.failure = error } }
    }
}

/// Memory for all threads, each of which uses its own part.
private final class ThreadMemory: Sendable {
    private let buffer: AlignedBuffer

    init(_ buffer: consuming AlignedBuffer) { self.buffer = buffer }

    func part(_ index: Int, size: Int) -> UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(rebasing: buffer.bytes[index * size..<(index + 1) * size])
    }
}
