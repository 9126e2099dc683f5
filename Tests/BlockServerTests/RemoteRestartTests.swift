// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockClient
import BlockDevices
import BlockServer
import DeviceProbe
import Digests
import Foundation
import LinuxIO
import SyncEngine
import Synchronization
import TestSupport
import Testing
import WireProtocol

/// A target whose session ends in the middle of a run, so that nothing counts that was done before.
@Suite(.blocking, .timeLimit(.minutes(60))) struct RemoteRestartTests {
    private let rig: ServerRig
    private let content: [UInt8]
    private let image: String

    init() throws {
        rig = try ServerRig()
        var random = SeededGenerator(seed: 4)
        content = random.bytes(12 << 20)
        image = rig.image("image")
        try makeImage(image, [UInt8](repeating: 0, count: content.count))
    }

    private func open(_ server: RemoteServer.Options = RemoteServer.Options()) throws
        -> RemoteBlockDevice
    {
        let facts = SourceFacts(
            name: "source", size: content.count, content: .empty, logicalSector: nil, identity: nil)
        return try rig.open(
            image, for: .init(mode: .write, block: 4096, source: facts), server)
    }

    /// Ends a session from outside, as a server does that is restarted, and writes to its device.
    private func disturb(_ session: String) throws {
        let connection = try HTTPConnection(port: rig.port)
        #expect(try connection.ask("DELETE", Route.session(session).path).status == 204)
        let file = try FileHandle(forUpdating: URL(fileURLWithPath: image))
        try file.write(contentsOf: Data([UInt8](repeating: 0xEE, count: 4096)))
        try file.close()
    }

    /// Makes the image equal to the source; the session ends when the source is read at some place.
    ///
    /// - Parameter isCancelled: whether the run is cancelled when the last pass begins.
    private func push(
        _ options: SyncOptions, disturbedAt places: [Int], isCancelled: Bool = false
    ) throws -> (SyncReport, RemoteBlockDevice) {
        let control = RunControl()
        let target = try open()
        let left = Mutex(places)
        var faults = FaultyDevice.Faults()
        let session = Mutex(target.record.session)
        faults.onRead = { range in
            if isCancelled, range.offset == 0, left.withLock({ $0.isEmpty }) { control.cancel() }
            let isDue = left.withLock { left in
                guard let place = left.first, range.end > place, range.offset <= place else {
                    return false
                }
                left.removeFirst()
                return true
            }
            guard isDue else { return }
            try? disturb(session.withLock { $0 })
        }
        let source = FaultyDevice(MemoryDevice(content), faults)
        let report = synchronize(
            source: source, target: target, options: options, control: control)
        target.release(isComplete: report.isGood)
        return (report, target)
    }

    @Test(arguments: [false, true], [nil, [ByteRange(offset: 8 << 20, length: 1 << 20)]])
    func `a disturbed run compares everything again, and the report counts all writes`(
        wholeFile: Bool, changes: [ByteRange]?
    ) throws {
        let options = SyncOptions(
            wholeFile: wholeFile, verifies: true, concurrency: 2, changes: changes)
        let (report, target) = try push(options, disturbedAt: [8 << 20])
        #expect(report.isGood, "\(report)")
        #expect(try [UInt8](contentsOf: image) == content)
        #expect(report.restarts == 1 && target.hasGap)
        #expect(report.tally.compared == content.count && report.tally.unchanged == 0)
        #expect(report.tally.written >= content.count)
        #expect(report.tally.different <= content.count)
        #expect(report.verification?.different == 0)
        #expect(rig.server.sessionCount == 0)
    }

    @Test func `differences of all passes are counted, also if the last pass is cancelled`() throws
    {
        let (report, _) = try push(
            SyncOptions(concurrency: 1), disturbedAt: [8 << 20], isCancelled: true)
        #expect(report.restarts == 1 && report.wasInterrupted, "\(report)")
        let tally = report.tally
        #expect(tally.compared <= 4 << 20 && tally.different <= tally.compared, "\(tally)")
        #expect(tally.differentInAllPasses > 6 << 20, "\(tally)")
    }

    @Test func `a target that was not used yet needs no restart`() throws {
        let target = try open()
        try disturb(target.record.session)
        let report = synchronize(
            source: MemoryDevice(content), target: target, options: SyncOptions(concurrency: 2),
            control: RunControl())
        #expect(report.isGood && report.restarts == 0, "\(report)")
        #expect(try [UInt8](contentsOf: image) == content)
        target.release(isComplete: true)
    }

    @Test func `reads before the run do not count after a disturbance`() throws {
        let target = try open()
        let buffer = AlignedBuffer(count: 4096)
        try target.read(into: buffer.bytes, at: 0)
        try disturb(target.record.session)
        #expect(throws: IOError.self) { try target.read(into: buffer.bytes, at: 0) }
        #expect(throws: IOError.self) { try target.write(buffer.bytes.bytes, at: 0) }
        var options = SyncOptions(concurrency: 2)
        options.changes = [ByteRange(offset: 1 << 20, length: 1 << 20)]
        let report = synchronize(
            source: MemoryDevice(content), target: target, options: options, control: RunControl())
        #expect(report.isGood && report.tally.unchanged == 0, "\(report)")
        #expect(try [UInt8](contentsOf: image) == content)
        target.release(isComplete: true)
    }

    @Test func `a target that keeps being lost ends the run`() throws {
        let target = try open()
        let source = RecordingDevice(MemoryDevice(content))
        let report = synchronize(
            source: source, target: LosingDevice(target), options: SyncOptions(concurrency: 1),
            control: RunControl())
        #expect(report.flushError != nil && report.restarts == 3)
        #expect(source.reads.count { $0.offset == 0 } == 4)
        target.release(isComplete: false)
    }
}

extension UnsafeMutableRawBufferPointer {
    fileprivate var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(self) }
}

/// A remote device that loses what was done to it each time.
private final class LosingDevice: RemoteDevice, SteadyDevice {
    private let base: RemoteBlockDevice
    init(_ base: RemoteBlockDevice) { self.base = base }

    var name: String { base.name }
    var geometry: Geometry { base.geometry }
    var digestMethod: DigestMethod { base.digestMethod }
    var digestKey: DigestKey? { base.digestKey }
    var requestLimit: Int { base.requestLimit }
    var extentLimit: Int { base.extentLimit }
    func takeRestart() -> Bool { true }
    func openChannel() -> any RemoteChannel { base.openChannel() }
    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: Int) throws(IOError) {
        try base.read(into: buffer, at: offset)
    }
    func write(_ buffer: UnsafeRawBufferPointer, at offset: Int) throws(IOError) {
        try base.write(buffer, at: offset)
    }
    func write(
        _ extents: [Extent], of bytes: UnsafeRawBufferPointer?, at offset: Int
    ) throws(IOError) { try base.write(extents, of: bytes, at: offset) }
    func zero(_ range: ByteRange) throws(IOError) { try base.zero(range) }
    func flush() throws(IOError) {
        throw .network(name, "flush", reason: "its session has ended")
    }
}
