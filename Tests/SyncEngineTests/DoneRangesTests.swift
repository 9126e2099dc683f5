// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import LinuxIO
import SystemPackage
import TestSupport
import Testing

@testable import SyncEngine

/// What a run reports as done.
@Suite(.blocking) struct DoneRangesTests {
    private func run(
        _ source: any BlockDevice, _ target: any BlockDevice, _ pair: DevicePair,
        stopsAt limit: Int? = nil, _ change: (inout SyncOptions) -> Void = { _ in }
    ) -> SyncReport {
        var options = SyncOptions(layout: BlockLayout(block: pair.block), concurrency: 3)
        options.recordsDone = true
        change(&options)
        return synchronize(
            source: source, target: target, options: options,
            control: RunControl(stopsAt: limit))
    }

    @Test(arguments: UInt64(1)...60)
    func `a stopped run is equal where it says so, and the next one does exactly the rest`(
        seed: UInt64
    ) {
        let pair = DevicePair.small(seed: seed)
        let size = pair.source.count
        var random = SeededGenerator(seed: seed)
        let source = RecordingDevice(MemoryDevice(pair.source, knowsHoles: seed % 2 == 0))
        let memory = MemoryDevice(pair.target, knowsHoles: seed % 3 == 0)
        let target = RecordingDevice(memory)
        let isWhole = seed % 5 == 0
        let first = run(
            source, target, pair, stopsAt: Int.random(in: 1...size, using: &random)
        ) { $0.wholeFile = isWhole }
        for range in first.done {
            let bytes = range.offset..<range.end
            #expect(memory.bytes[bytes] == pair.source[bytes])
        }
        #expect(first.done == first.done.union([]), "ascending and joined")
        #expect(!first.wasRestricted && first.done.byteCount == first.tally.compared)
        let rest = first.done.complement(size: size)
        let reads = source.reads.count
        let second = run(source, target, pair) {
            $0.changes = rest
            $0.wholeFile = isWhole
        }
        #expect(memory.bytes == pair.source)
        #expect(second.wasRestricted)
        #expect(first.done.union(second.done).byteCount == size)
        let region = BlockLayout(block: pair.block).region
        let allowed = rest.rounded(to: region, limit: size)
        for read in source.reads.dropFirst(reads) {
            #expect(allowed.contains { $0.offset <= read.offset && read.end <= $0.end })
        }
    }

    @Test(arguments: UInt64(1)...40)
    func `windows with an error or a gap are not done`(seed: UInt64) {
        let pair = DevicePair.small(seed: seed)
        let size = pair.source.count
        var random = SeededGenerator(seed: seed)
        func places() -> [ByteRange] {
            (0..<Int.random(in: 0...2, using: &random)).map { _ in
                ByteRange(offset: Int.random(in: 0..<size, using: &random), length: 1)
            }
        }
        var (reading, writing) = (FaultyDevice.Faults(), FaultyDevice.Faults())
        reading.unreadable = places()
        reading.readError = .noData
        writing.unwritable = places()
        let memory = MemoryDevice(pair.target)
        let report = run(
            FaultyDevice(MemoryDevice(pair.source), reading), FaultyDevice(memory, writing), pair
        ) { $0.skipsUnreadable = seed % 2 == 0 }
        for range in report.done {
            let bytes = range.offset..<range.end
            #expect(memory.bytes[bytes] == pair.source[bytes])
            #expect(!reading.unreadable.contains { $0.overlaps(range) })
        }
        let isComplete = report.failure == nil && report.tally.writeErrorCount == 0
        if isComplete && report.tally.unreadable == 0 { #expect(report.done.byteCount == size) }
        if report.tally.writeErrorCount > 0 || report.tally.unreadable > 0 {
            #expect(report.done.byteCount < size)
        }
    }

    @Test func `a write that the undo journal refuses is not done`() {
        let pair = DevicePair(seed: 3, size: 4 << 20)
        let target = JournalErrorDevice(MemoryDevice([UInt8](repeating: 1, count: 4 << 20)))
        let report = run(MemoryDevice(pair.source), target, pair)
        #expect(report.failure?.kind == .journal)
        #expect(report.done.isEmpty)
    }

    @Test func `ranges that arrive in any order are joined`() {
        var random = SeededGenerator(seed: 9)
        let pieces = ByteRange(offset: 0, length: 4096).pieces(of: 16)
        for _ in 0..<50 {
            var done = DoneRanges()
            for piece in pieces.shuffled(using: &random) { done.insert(piece) }
            #expect(done.ranges == [ByteRange(offset: 0, length: 4096)])
        }
        let some = [ByteRange(offset: 10, length: 5), ByteRange(offset: 20, length: 1)]
        #expect(
            some.complement(size: 30) == [
                ByteRange(0, to: 10), ByteRange(15, to: 20), ByteRange(21, to: 30),
            ])
        #expect(some.complement(size: 12) == [ByteRange(0, to: 10)])
        #expect(some.union(some.complement(size: 30)) == [ByteRange(0, to: 30)])
        #expect([ByteRange]().complement(size: 0).isEmpty)
    }

    @Test func `the first reason to end a run stays`() {
        let (stopped, cancelled) = (RunControl(), RunControl())
        stopped.stop()
        stopped.cancel()
        cancelled.cancel()
        cancelled.stop()
        #expect(stopped.isStopped && stopped.isCancelled)
        #expect(!cancelled.isStopped && cancelled.isCancelled)
        #expect(!RunControl().isCancelled)
    }
}

/// A target whose undo journal cannot be written.
private final class JournalErrorDevice: WrappingDevice {
    let base: any BlockDevice

    init(_ base: any BlockDevice) { self.base = base }

    private var failure: IOError {
        var error = IOError("undo", "write", .noSpace)
        error.kind = .journal
        return error
    }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: Int) throws(IOError) {
        try base.read(into: buffer, at: offset)
    }

    func write(_ buffer: UnsafeRawBufferPointer, at offset: Int) throws(IOError) { throw failure }

    func flush() throws(IOError) { try base.flush() }

    func zero(_ range: ByteRange) throws(IOError) { throw failure }

    func attempt(_ transfers: [Transfer], _ direction: Transfer.Direction) -> [Bool] {
        transfers.map { _ in false }
    }
}
