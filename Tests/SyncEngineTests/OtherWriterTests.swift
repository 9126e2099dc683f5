// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import LinuxIO
import Synchronization
import TestSupport
import Testing

@testable import SyncEngine

/// Targets that another program opens for writing during a run.
@Suite(.blocking) struct OtherWriterTests {
    private let content: [UInt8]

    init() {
        var random = SeededGenerator(seed: 15)
        content = random.bytes(4 << 20)
    }

    /// - Parameters:
    ///   - visits: the passes at whose end the program has the target open.
    ///   - writing: the pass at whose end it also writes; `nil` if it only opens the target.
    private func run(
        verifies: Bool, visits: Set<Int>, writing: Int? = nil
    ) -> (report: SyncReport, passes: Int) {
        let target = OpenedDevice(size: content.count, visits: visits, writing: writing)
        // A wrapper that must ask its base.
        let wrapper = SubstitutedDevice(target, Patch([7], at: 512), as: [7])
        let report = synchronize(
            source: MemoryDevice(content), target: wrapper,
            options: SyncOptions(verifies: verifies, concurrency: 1), control: RunControl())
        #expect(report.failure == nil && report.flushError == nil)
        return (report, target.passes)
    }

    @Test(arguments: [false, true])
    func `a target that nobody else opens is compared no more than asked for`(verifies: Bool) {
        let (report, passes) = run(verifies: verifies, visits: [])
        #expect(passes == (verifies ? 2 : 1))
        #expect(!report.targetWasOpened && !report.targetChanged)
    }

    @Test(arguments: [false, true])
    func `a target that was open before the comparison is compared once`(verifies: Bool) {
        let (report, passes) = run(verifies: verifies, visits: [1])
        #expect(passes == 2)
        #expect(report.verification?.different == 0)
        #expect(report.targetWasOpened && !report.targetIsUnproven && !report.targetChanged)
    }

    @Test(arguments: [(true, [2]), (true, [1, 2]), (false, [1, 2])] as [(Bool, Set<Int>)])
    func `a target that was open during the comparison is compared again`(
        verifies: Bool, visits: Set<Int>
    ) {
        let (report, passes) = run(verifies: verifies, visits: visits)
        #expect(passes == 3)
        #expect(report.verification?.different == 0)
        #expect(report.targetWasOpened && !report.targetIsUnproven && !report.targetChanged)
    }

    @Test(arguments: [false, true])
    func `a write behind the comparison is found`(verifies: Bool) {
        let (report, passes) = run(
            verifies: verifies, visits: verifies ? [2] : [1, 2], writing: 2)
        #expect(passes == 3)
        #expect(report.verification?.different == 4096)
        #expect(report.targetWasOpened && !report.targetIsUnproven)
    }

    @Test(arguments: [false, true])
    func `a target that is opened again and again is no success`(verifies: Bool) {
        let (report, passes) = run(verifies: verifies, visits: [1, 2, 3, 4])
        #expect(passes == 3)
        #expect(report.targetIsUnproven && report.targetChanged)
    }
}

/// A device that another program opens at the end of some passes over it.
private final class OpenedDevice: SteadyDevice {
    private let base: MemoryDevice
    private let visits: Set<Int>
    private let writing: Int?
    private struct State {
        var passes = 0
        var wasOpened = false
    }
    private let state = Mutex(State())

    init(size: Int, visits: Set<Int>, writing: Int?) {
        base = MemoryDevice([UInt8](repeating: 0, count: size))
        self.visits = visits
        self.writing = writing
    }

    var passes: Int { state.withLock { $0.passes } }
    var name: String { base.name }
    var geometry: Geometry { base.geometry }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: Int) throws(IOError) {
        try base.read(into: buffer, at: offset)
        guard offset + buffer.count == geometry.size else { return }
        let pass = state.withLock { state in
            state.passes += 1
            if visits.contains(state.passes) { state.wasOpened = true }
            return state.passes
        }
        if pass == writing { try base.write([UInt8](repeating: 0xEE, count: 4096), at: 0) }
    }

    func write(_ buffer: UnsafeRawBufferPointer, at offset: Int) throws(IOError) {
        try base.write(buffer, at: offset)
    }

    func zero(_ range: ByteRange) throws(IOError) { try base.zero(range) }
    func flush() throws(IOError) {}

    func hadOtherWriters() -> Bool {
        state.withLock { state in
            defer { state.wasOpened = false }
            return state.wasOpened
        }
    }
}
