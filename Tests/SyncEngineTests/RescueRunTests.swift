// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import LinuxIO
import Synchronization
import SystemPackage
import TestSupport
import Testing

@testable import SyncEngine

@Suite struct RescueRunTests {
    static let unit = 512

    /// Reads a device of a test in the same thread.
    final class DeviceReader: SpotReader {
        let device: any BlockDevice
        /// Reads that touch one of these are late, and stay open.
        var silent: [ByteRange] = []
        var onWait: () -> Void = {}
        private(set) var reads: [ByteRange] = []
        private(set) var openReads = 0
        private let memory = AlignedBuffer(count: 8 << 20)
        private var current: ByteRange?
        private var half = 0

        init(_ device: any BlockDevice) { self.device = device }

        func start(_ range: ByteRange) {
            precondition(current == nil)
            current = range
            reads.append(range)
            half = 1 - half
        }

        func wait(
            until deadline: ContinuousClock.Instant?, unless isCancelled: () -> Bool
        ) -> SpotAnswer {
            guard let range = current else { preconditionFailure("nothing was started") }
            current = nil
            onWait()
            if isCancelled() { return .cancelled }
            if silent.contains(where: range.overlaps) {
                openReads += 1
                return .late
            }
            let bytes = slice(memory.bytes, half * 4 << 20, half * 4 << 20 + range.length)
            do throws(IOError) {
                try device.read(into: bytes, at: range.offset)
                return .bytes(bytes)
            } catch {
                return .failed(error)
            }
        }
    }

    /// A target that loses at a power cut what it has not flushed.
    final class CachedDevice: WrappingDevice {
        let memory: MemoryDevice
        private let medium: Mutex<[UInt8]>
        private let fails = Atomic(false)

        init(_ content: [UInt8]) {
            memory = MemoryDevice(content, name: "target")
            medium = Mutex(content)
        }

        var base: any BlockDevice { memory }
        var durable: [UInt8] { medium.withLock { $0 } }
        func failFlush() { fails.store(true, ordering: .relaxed) }

        func read(into buffer: UnsafeMutableRawBufferPointer, at offset: Int) throws(IOError) {
            try base.read(into: buffer, at: offset)
        }
        func write(_ buffer: UnsafeRawBufferPointer, at offset: Int) throws(IOError) {
            try base.write(buffer, at: offset)
        }
        func zero(_ range: ByteRange) throws(IOError) { try base.zero(range) }
        func resize(to size: Int) throws(IOError) { try base.resize(to: size) }
        func flush() throws(IOError) {
            // Linux reports lost writes once.
            if fails.exchange(false, ordering: .relaxed) { throw IOError(name, "flush", .ioError) }
            medium.withLock { $0 = memory.bytes }
        }
    }

    /// A source whose name leads to nothing any more.
    final class GoneDevice: WrappingDevice {
        let base: any BlockDevice

        init(_ base: any BlockDevice) { self.base = base }

        func read(into buffer: UnsafeMutableRawBufferPointer, at offset: Int) throws(IOError) {
            try base.read(into: buffer, at: offset)
        }
        func write(_ buffer: UnsafeRawBufferPointer, at offset: Int) throws(IOError) {
            try base.write(buffer, at: offset)
        }
        func zero(_ range: ByteRange) throws(IOError) { try base.zero(range) }
        func resize(to size: Int) throws(IOError) { try base.resize(to: size) }
        func flush() throws(IOError) { try base.flush() }
        func checkIdentity() throws(IOError) {
            throw IOError(name, "find", Errno(rawValue: 19))  // ENODEV
        }
    }

    /// Keeps the last map, and checks that it claims nothing that is not on the medium.
    final class Store: RescueStore {
        let source: [UInt8]
        let target: CachedDevice
        private(set) var last: RescueMap?
        private(set) var count = 0

        init(_ source: [UInt8], _ target: CachedDevice) {
            self.source = source
            self.target = target
        }

        func save(_ map: RescueMap) throws(IOError) {
            last = map
            count += 1
            let durable = target.durable
            for range in map.ranges(.finished) {
                #expect(
                    durable[range.offset..<range.end] == source[range.offset..<range.end],
                    "\(range)")
            }
        }
    }

    struct Rig {
        let content: [UInt8]
        let old: [UInt8]
        let faulty: FaultyDevice
        let reader: DeviceReader
        let target: CachedDevice
        let store: Store

        init(_ content: [UInt8], old: [UInt8], bad: [ByteRange]) {
            self.content = content
            self.old = old
            var faults = FaultyDevice.Faults()
            faults.unreadable = bad
            faulty = FaultyDevice(MemoryDevice(content, name: "source"), faults)
            reader = DeviceReader(faulty)
            target = CachedDevice(old)
            store = Store(content, target)
        }

        func run(
            _ map: RescueMap, _ control: RunControl = RunControl(), isReversed: Bool = false
        ) -> SyncReport {
            let rescue = Rescue(
                map: map, isReversed: isReversed, readTimeout: .milliseconds(50), reader: reader,
                store: store)
            return synchronize(
                source: faulty, target: target, options: SyncOptions(), control: control,
                rescue: rescue)
        }
    }

    static func bytes(_ count: Int, _ random: inout SplitMix64) -> [UInt8] {
        var generator = SeededGenerator(seed: random.next())
        return generator.bytes(count)
    }

    @Test(arguments: seeds(30))
    func `runs that are interrupted anywhere get all that can be read`(_ seed: UInt64) throws {
        var random = SplitMix64(seed: seed)
        let size = Self.unit * Int.random(in: 1...4000, using: &random)
        let content = Self.bytes(size, &random)
        var old = content
        for _ in 0..<10 {
            let start = Int.random(in: 0..<size, using: &random)
            for index in start..<min(size, start + 20_000) { old[index] = 7 }
        }
        var bad: [ByteRange] = []
        for _ in 0..<Int.random(in: 1...6, using: &random) {
            let start = Int.random(in: 0..<size, using: &random) / Self.unit * Self.unit
            bad.append(ByteRange(start, to: min(size, start + 1024)))
        }
        let rig = Rig(content, old: old, bad: bad)
        var map = RescueMap(size: size)
        for run in 0..<5 {
            let control = RunControl()
            var left = Int.random(in: 0...6, using: &random)
            rig.reader.onWait = {
                left -= 1
                if left < 0 { control.cancel() }
            }
            let report = rig.run(map, control, isReversed: run % 2 == 1)
            #expect(report.failure == nil)
            map = try #require(rig.store.last)
        }
        rig.reader.onWait = {}
        let report = rig.run(map)
        #expect(report.failure == nil && !report.wasInterrupted && report.isFlushed)
        map = try #require(rig.store.last)
        var expected = content
        var missing = 0
        for index in 0..<size where bad.contains(where: { index >= $0.offset && index < $0.end }) {
            expected[index] = old[index]
            missing += 1
        }
        #expect(rig.target.durable == expected)
        #expect(map.bytes(.finished) == size - missing && map.bytes(.bad) == missing)
        #expect(report.tally.unreadable == missing)
        #expect(report.tally.compared + report.tally.unchanged == size)
        #expect(report.rescue == RescueResult(map))
        // The sectors become readable.
        rig.faulty.change(FaultyDevice.Faults())
        let last = rig.run(map, isReversed: true)
        #expect(last.tally.unreadable == 0 && rig.target.durable == content)
    }

    @Test func `only what differs is written`() {
        var random = SplitMix64(seed: 1)
        let content = Self.bytes(4 << 20, &random)
        var old = content
        old[1 << 20] ^= 1
        let rig = Rig(content, old: old, bad: [])
        let report = rig.run(RescueMap(size: content.count))
        #expect(report.tally.written == 4096 && report.tally.different == 4096)
        #expect(rig.target.durable == content)
    }

    @Test func `a map of another target is refused before anything is written`() {
        var random = SplitMix64(seed: 2)
        let content = Self.bytes(1 << 20, &random)
        let old = [UInt8](repeating: 0, count: 1 << 20)
        let rig = Rig(content, old: old, bad: [])
        var map = RescueMap(size: 1 << 20)
        map.set(ByteRange(offset: 65536, length: 65536), to: .finished)
        let report = rig.run(map)
        #expect(report.failure?.cause == .changed)
        #expect(rig.store.count == 0)
        #expect(rig.target.memory.bytes == old)
    }

    @Test func `zeros prove nothing, so more places are compared`() {
        var random = SplitMix64(seed: 6)
        let size = 4 << 20
        var content = [UInt8](repeating: 0, count: size)
        // One sector in 16 is not empty.
        for start in stride(from: 0, to: size, by: 16 * Self.unit) {
            content.replaceSubrange(
                start..<start + Self.unit, with: Self.bytes(Self.unit, &random))
        }
        let old = [UInt8](repeating: 0, count: size)
        let rig = Rig(content, old: old, bad: [])
        var map = RescueMap(size: size)
        map.set(ByteRange(offset: 0, length: size), to: .finished)
        let report = rig.run(map)
        #expect(report.failure?.cause == .changed)
        let copy = Rig(content, old: content, bad: [])
        #expect(copy.run(map).failure == nil)
        #expect((32...256).contains(copy.reader.reads.count))
        let empty = Rig(old, old: old, bad: [])
        #expect(empty.run(map).failure == nil)
        #expect(empty.reader.reads.count == 256)
        let full = Self.bytes(size, &random)
        let usual = Rig(full, old: full, bad: [])
        #expect(usual.run(map).failure == nil)
        #expect(usual.reader.reads.count == 32)
    }

    @Test func `a failed flush claims nothing`() {
        var random = SplitMix64(seed: 3)
        let content = Self.bytes(4 << 20, &random)
        let rig = Rig(content, old: [UInt8](repeating: 0, count: 4 << 20), bad: [])
        // Longer than the first interval, so that a piece is saved while others are left.
        rig.reader.onWait = { pause(for: .milliseconds(150)) }
        rig.target.failFlush()
        let report = rig.run(RescueMap(size: 4 << 20))
        #expect(report.failure?.operation == "flush" && !report.isFlushed)
        #expect(report.tally.unreadable == 0 && report.rescue?.finished == 0)
        #expect(rig.store.last?.bytes(.finished) == 0)
    }

    @Test func `a source that answers no read ends the run`() {
        var random = SplitMix64(seed: 4)
        let content = Self.bytes(32 << 20, &random)
        let rig = Rig(content, old: [UInt8](repeating: 0, count: 32 << 20), bad: [])
        rig.reader.silent = [ByteRange(4 << 20, to: 32 << 20)]
        let report = rig.run(RescueMap(size: 32 << 20))
        #expect(report.failure == nil && report.rescue?.wasSilent == true)
        #expect(report.rescue?.finished == 4 << 20)
        #expect(rig.reader.openReads == 8)
        #expect(report.tally.unreadable == 28 << 20)
    }

    @Test func `a source that is gone ends the run with its error`() {
        var random = SplitMix64(seed: 5)
        let content = Self.bytes(2 << 20, &random)
        let rig = Rig(content, old: content, bad: [ByteRange(offset: 1 << 20, length: 512)])
        var faults = FaultyDevice.Faults()
        faults.unreadable = [ByteRange(offset: 1 << 20, length: 512)]
        faults.readError = Errno(rawValue: 19)  // ENODEV
        rig.faulty.change(faults)
        let report = rig.run(RescueMap(size: 2 << 20))
        #expect(report.failure?.errno == Errno(rawValue: 19))
        #expect(rig.store.last?.bytes(.finished) == 1 << 20)
        #expect(rig.store.last?.bytes(.bad) == 0)
    }

    @Test func `what failed since the source is gone is not bad`() {
        var random = SplitMix64(seed: 7)
        let size = 2 << 20
        let content = Self.bytes(size, &random)
        let rig = Rig(content, old: content, bad: [ByteRange(offset: 1 << 20, length: 512)])
        let rescue = Rescue(
            map: RescueMap(size: size), isReversed: false, readTimeout: nil, reader: rig.reader,
            store: rig.store)
        let report = synchronize(
            source: GoneDevice(rig.faulty), target: rig.target, options: SyncOptions(),
            control: RunControl(), rescue: rescue)
        #expect(report.failure?.errno == Errno(rawValue: 19))
        let map = rig.store.last ?? RescueMap(size: 0)
        #expect(map.bytes(.finished) >= 1 << 20 && map.status(at: 1 << 20) == .untried)
        #expect(map.bytes(.finished) + map.bytes(.untried) == size)
        #expect(report.rescue == RescueResult(map) && report.tally.unreadable == 0)
    }
}
