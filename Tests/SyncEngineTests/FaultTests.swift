// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import LinuxIO
import SystemPackage
import TestSupport
import Testing

@testable import SyncEngine

@Suite(.blocking) struct FaultTests {
    private let size = 4 << 20
    private let window = BlockLayout().window
    private let source: [UInt8]
    private let old: [UInt8]

    init() {
        var random = SeededGenerator(seed: 5)
        source = random.bytes(size)
        old = random.bytes(size)
    }

    @Test func `a read error on the source ends the run, and the target is flushed`() {
        var faults = FaultyDevice.Faults()
        faults.unreadable = [ByteRange(offset: window + 1000, length: 1)]
        let target = RecordingDevice(MemoryDevice(old))
        let report = synchronize(
            source: FaultyDevice(MemoryDevice(source, name: "disk"), faults), target: target,
            options: SyncOptions(), control: RunControl())
        #expect(report.failure?.object == "disk")
        #expect(report.failure?.errno == .ioError)
        #expect(report.failure?.operation == "read at offset \(window), length \(window)")
        #expect(target.operations.last == .flush)
    }

    @Test(arguments: [512, 4096])
    func `skipped sectors are found exactly, left as they were, and all else is copied`(
        targetSector: Int
    ) {
        var faults = FaultyDevice.Faults()
        faults.readError = .noData
        faults.unreadable = [
            ByteRange(offset: 1_000_000, length: 1), ByteRange(offset: 2_000_000, length: 3000),
            ByteRange(offset: size - 1, length: 1),
        ]
        let memory = MemoryDevice(old, alignment: targetSector)
        let target = RecordingDevice(memory)
        let report = synchronize(
            source: FaultyDevice(MemoryDevice(source), faults), target: target,
            options: SyncOptions(skipsUnreadable: true), control: RunControl())
        let expected = faults.unreadable.rounded(to: 512, limit: size)
            .rounded(to: targetSector, limit: size)
        #expect(report.failure == nil)
        #expect(report.unreadableRanges == expected)
        #expect(report.tally.unreadable == expected.reduce(0) { $0 + $1.length })
        var content = source
        for range in expected {
            content.replaceSubrange(range.offset..<range.end, with: old[range.offset..<range.end])
        }
        #expect(memory.bytes == content)
        #expect(
            !target.modifications.contains { write in expected.contains(where: write.overlaps) })
    }

    @Test func `a whole copy leaves unreadable sectors alone as well`() {
        var faults = FaultyDevice.Faults()
        faults.unreadable = [ByteRange(offset: 8192, length: 512)]
        let memory = MemoryDevice(old)
        let report = synchronize(
            source: FaultyDevice(MemoryDevice(source), faults), target: memory,
            options: SyncOptions(wholeFile: true, skipsUnreadable: true), control: RunControl())
        #expect(report.unreadableRanges == faults.unreadable)
        #expect(Array(memory.bytes[8192..<8704]) == Array(old[8192..<8704]))
        #expect(memory.bytes.dropFirst(8704).elementsEqual(source.dropFirst(8704)))
    }

    @Test func `a device that vanished is not read around`() {
        var faults = FaultyDevice.Faults()
        faults.unreadable = [ByteRange(offset: 0, length: size)]
        faults.readError = .noSuchAddressOrDevice
        let report = synchronize(
            source: FaultyDevice(MemoryDevice(source), faults), target: MemoryDevice(old),
            options: SyncOptions(skipsUnreadable: true), control: RunControl())
        #expect(report.failure?.errno == .noSuchAddressOrDevice)
        #expect(report.unreadableRanges.isEmpty)
    }

    @Test(arguments: [Errno.ioError, .noSpace])
    func `a write error names the extent, and the other windows still finish`(error: Errno) {
        var faults = FaultyDevice.Faults()
        faults.unwritable = [ByteRange(offset: window, length: 1)]
        faults.writeError = error
        let memory = MemoryDevice(old)
        let report = synchronize(
            source: MemoryDevice(source), target: FaultyDevice(memory, faults),
            options: SyncOptions(), control: RunControl())
        #expect(report.failure == nil)
        #expect(report.tally.writeErrorCount == 1)
        #expect(report.tally.writeErrors.first?.errno == error)
        #expect(
            report.tally.writeErrors.first?.operation
                == "write at offset \(window), length \(window)")
        #expect(memory.bytes.prefix(window) == source.prefix(window))
        #expect(memory.bytes.dropFirst(2 * window).elementsEqual(source.dropFirst(2 * window)))
        #expect(report.isFlushed)
    }

    @Test func `unreadable sectors of the target are written, and no equal ones with them`() {
        var faults = FaultyDevice.Faults()
        faults.unreadable = [ByteRange(offset: 40960, length: 100)]
        let target = RecordingDevice(FaultyDevice(MemoryDevice(source), faults))
        let report = synchronize(
            source: MemoryDevice(source), target: target, options: SyncOptions(),
            control: RunControl())
        #expect(report.failure == nil)
        #expect(report.tally.rewritten == 512)
        #expect(target.modifications == [ByteRange(offset: 40960, length: 4096)])
    }

    @Test func `an unreadable target fails a comparison`() {
        var faults = FaultyDevice.Faults()
        faults.unreadable = [ByteRange(offset: 40960, length: 100)]
        let report = compare(
            source: MemoryDevice(source), target: FaultyDevice(MemoryDevice(source), faults),
            options: SyncOptions(), control: RunControl())
        #expect(report.failure?.errno == .ioError)
    }

    @Test func `a flush that fails is reported, and nothing is verified`() {
        var faults = FaultyDevice.Faults()
        faults.flushError = .ioError
        let report = synchronize(
            source: MemoryDevice(source), target: FaultyDevice(MemoryDevice(old), faults),
            options: SyncOptions(verifies: true), control: RunControl())
        #expect(report.flushError?.errno == .ioError)
        #expect(!report.isFlushed)
        #expect(report.verification == nil)
    }

    @Test func `verification finds a write that the device lost`() {
        let memory = MemoryDevice(old)
        let flushed = LosingDevice(memory, lost: ByteRange(offset: 8192, length: 4096))
        let report = synchronize(
            source: MemoryDevice(source), target: flushed, options: SyncOptions(verifies: true),
            control: RunControl())
        #expect(report.verification?.different == 4096)
        #expect(
            report.verification?.firstDifferences == [ByteRange(offset: 8192, length: 4096)])
    }

    @Test func `a cancelled run ends at a window, is flushed, and a second one finishes the job`() {
        let control = RunControl()
        var faults = FaultyDevice.Faults()
        let window = window
        faults.onRead = { if $0.offset >= window { control.cancel() } }
        let memory = MemoryDevice(old)
        let target = RecordingDevice(memory)
        let report = synchronize(
            source: FaultyDevice(MemoryDevice(source), faults), target: target,
            options: SyncOptions(verifies: true, concurrency: 1), control: control)
        #expect(report.wasInterrupted)
        #expect(report.failure == nil)
        #expect(report.verification == nil)
        #expect(report.tally.compared == 2 * window)
        #expect(target.operations.last == .flush)
        #expect(memory.bytes != source)

        let second = synchronize(
            source: MemoryDevice(source), target: memory, options: SyncOptions(),
            control: RunControl())
        #expect(!second.wasInterrupted)
        #expect(memory.bytes == source)
        #expect(second.tally.different == size - report.tally.compared)
    }

    @Test func `reading around a bad block stops when the run is cancelled`() {
        let control = RunControl()
        var faults = FaultyDevice.Faults()
        faults.unreadable = [ByteRange(offset: 0, length: size)]
        faults.onRead = { _ in control.cancel() }
        let recorded = RecordingDevice(FaultyDevice(MemoryDevice(source), faults))
        let report = synchronize(
            source: recorded, target: MemoryDevice(old),
            options: SyncOptions(skipsUnreadable: true, concurrency: 1), control: control)
        #expect(report.wasInterrupted)
        #expect(report.failure == nil)
        #expect(recorded.reads.count <= 2)
    }

    @Test func `progress reaches the total, and counts the differences`() {
        let control = RunControl()
        _ = compare(
            source: MemoryDevice(source), target: MemoryDevice(old), options: SyncOptions(),
            control: control)
        #expect(control.progress.done == size)
        #expect(control.progress.total == size)
        #expect(control.progress.different == size)
    }
}

/// A device that says it wrote, and did not.
private final class LosingDevice: SteadyDevice {
    private let base: MemoryDevice
    private let lost: ByteRange

    init(_ base: MemoryDevice, lost: ByteRange) {
        self.base = base
        self.lost = lost
    }

    var name: String { base.name }
    var geometry: Geometry { base.geometry }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: Int) throws(IOError) {
        try base.read(into: buffer, at: offset)
    }

    func write(_ buffer: UnsafeRawBufferPointer, at offset: Int) throws(IOError) {
        let range = ByteRange(offset: offset, length: buffer.count)
        let before = ByteRange(offset, to: max(offset, min(range.end, lost.offset)))
        let after = ByteRange(min(range.end, max(offset, lost.end)), to: range.end)
        for part in [before, after] where !part.isEmpty {
            let start = part.offset - offset
            try base.write(
                UnsafeRawBufferPointer(rebasing: buffer[start..<start + part.length]),
                at: part.offset)
        }
    }

    func zero(_ range: ByteRange) throws(IOError) { try base.zero(range) }
    func flush() throws(IOError) {}
}
