// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockClient
import BlockDevices
import BlockServer
import Digests
import LinuxIO
import SyncEngine
import Synchronization
import TestSupport
import Testing
import WireProtocol

/// Data that a server sends is what it has compared, or it is not written.
@Suite(.blocking, .timeLimit(.minutes(60))) struct RemoteReadCheckTests {
    private let rig: ServerRig

    init() throws { rig = try ServerRig() }

    /// Pulls an image and changes one read on its way, with a correct digest of the frame.
    ///
    /// - Parameters:
    ///   - block: in bytes.
    ///   - faults: reads that are changed.
    ///   - isWritten: whether the source's change counter tells of writes all the time.
    /// - Returns: the report, the device, what it has to be, and the number of changed reads.
    /// - Throws: when the image cannot be made or opened.
    private func pull(
        block: Int = 4096, faults: Int, isWritten: Bool = false
    ) throws -> (report: SyncReport, target: [UInt8], source: [UInt8], changed: Int) {
        var random = SeededGenerator(seed: 4)
        var content = random.bytes(3 << 20)
        // A part of a block, and whole blocks.
        for index in 70_000..<72_000 { content[index] = 0 }
        for index in (1 << 20)..<(1 << 20) + 300_000 { content[index] = 0 }
        try makeImage(rig.image("source"), content)
        let base = try rig.open(rig.image("source"), for: .init(mode: .read, block: block))
        let source = FaultySource(base, faults: faults, isWritten: isWritten)
        let target = MemoryDevice([UInt8](repeating: 1, count: content.count))
        var options = SyncOptions(concurrency: 1)
        options.layout = BlockLayout(block: base.record.block)
        let report = synchronize(
            source: source, target: target, options: options, control: RunControl())
        base.release(isComplete: report.isGood)
        return (report, target.bytes, content, source.changed)
    }

    @Test func `a device on a server is remote, also in a wrapper that is remote itself`() throws {
        try makeImage(rig.image("source"), [UInt8](repeating: 1, count: 8192))
        let base = try rig.open(rig.image("source"), for: .init(mode: .read, block: 4096))
        let device: any BlockDevice = base
        #expect(device.isRemote && device.isImage && device.isFlushable && device.traffic != nil)
        let wrapper: any BlockDevice = FaultySource(base, faults: 0, isWritten: false)
        #expect(wrapper.isRemote && !wrapper.isImage && wrapper.traffic == nil)
        base.release(isComplete: true)
    }

    @Test(arguments: [512, 1536, 4096, 65536, 66048])
    func `data that matches its digest is written`(block: Int) throws {
        let result = try pull(block: block, faults: 0)
        #expect(result.report.isGood && result.target == result.source)
        #expect(result.report.tally.different == result.source.count)
    }

    @Test(arguments: [512, 4096, 65536], [1, 3])
    func `data that changed once in a while is compared and fetched again`(
        block: Int, faults: Int
    ) throws {
        let result = try pull(block: block, faults: faults)
        #expect(result.changed == faults)
        #expect(result.report.isGood && result.target == result.source)
        #expect(result.report.tally.compared == result.source.count)
    }

    @Test func `data that never matches its digest is not written and ends the run`() throws {
        let result = try pull(faults: .max)
        let error = result.report.failure
        #expect(error?.isNetwork == false && error?.operation == "read", "\(result.report)")
        #expect(error?.reason.contains("other bytes than it compares") == true)
        #expect(error?.advice?.contains("snapshot") == true)
        // The first byte of every read was changed: not one of them was written.
        #expect(result.changed == 5)
        #expect(result.target.allSatisfy { $0 == 1 })
    }

    @Test func `a source that is written to all the time is copied as it is`() throws {
        let result = try pull(faults: 6, isWritten: true)
        #expect(result.report.isGood && result.report.sourceChanged)
        #expect(result.changed == 6)
    }
}

/// A remote device whose answers to read requests change on their way from the disk to the wire.
private final class FaultySource: RemoteDevice, SteadyDevice {
    private let base: RemoteBlockDevice
    fileprivate let left: Mutex<Int>
    private let count = Mutex(0)
    private let isWritten: Bool
    private let counter = Mutex(0)

    init(_ base: RemoteBlockDevice, faults: Int, isWritten: Bool) {
        self.base = base
        self.isWritten = isWritten
        left = Mutex(faults)
    }

    var changed: Int { count.withLock { $0 } }
    var name: String { base.name }
    var geometry: Geometry { base.geometry }
    var digestMethod: DigestMethod { base.digestMethod }
    var digestKey: DigestKey? { base.digestKey }
    var requestLimit: Int { base.requestLimit }
    var extentLimit: Int { base.extentLimit }
    func openChannel() -> any RemoteChannel { FaultyChannel(base.openChannel(), self) }
    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: Int) throws(IOError) {
        try base.read(into: buffer, at: offset)
    }
    func write(_ buffer: UnsafeRawBufferPointer, at offset: Int) throws(IOError) {}
    func write(
        _ extents: [Extent], of bytes: UnsafeRawBufferPointer?, at offset: Int
    ) throws(IOError) {}
    func zero(_ range: ByteRange) throws(IOError) {}
    func flush() throws(IOError) { try base.flush() }
    func changeCounter() -> ChangeCounter? {
        ChangeCounter([
            counter.withLock { counter in
                if isWritten { counter += 1 }
                return counter
            }
        ])
    }

    fileprivate func takesFault() -> Bool {
        let isFault = left.withLock { left in
            guard left > 0 else { return false }
            left -= 1
            return true
        }
        if isFault { count.withLock { $0 += 1 } }
        return isFault
    }
}

private final class FaultyChannel: RemoteChannel {
    private let base: any RemoteChannel
    private let device: FaultySource

    init(_ base: any RemoteChannel, _ device: FaultySource) {
        self.base = base
        self.device = device
    }

    func compare(
        _ window: [ByteRange], digests: UnsafeRawBufferPointer
    ) throws(IOError) -> [RegionDifference] { try base.compare(window, digests: digests) }

    func write(
        _ extents: ArraySlice<Extent>, _ parts: [UnsafeRawBufferPointer]
    ) throws(IOError) {}

    func read(_ ranges: [ByteRange]) throws(IOError) -> ExtentData {
        let payload = try base.read(ranges)
        if !payload.data.isEmpty, device.takesFault() {
            UnsafeMutableRawBufferPointer(mutating: payload.data)[0] ^= 0x10
        }
        return payload
    }
}
