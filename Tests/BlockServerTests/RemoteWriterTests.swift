// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockClient
import BlockDevices
import DeviceProbe
import LinuxIO
import SyncEngine
import Synchronization
import TestSupport
import Testing
import WireProtocol

/// A server's image that another program opens for writing during a run.
@Suite(.blocking, .timeLimit(.minutes(60))) struct RemoteWriterTests {
    private let rig: ServerRig
    private let content: [UInt8]
    private let image: String

    init() throws {
        rig = try ServerRig()
        var random = SeededGenerator(seed: 8)
        content = random.bytes(1 << 20)
        image = rig.image("image")
        try makeImage(image, [UInt8](repeating: 0, count: content.count))
    }

    /// - Parameters:
    ///   - visits: the passes during which the program opens the image.
    ///   - command: what it does before.
    private func push(
        verifies: Bool, visits: Set<Int>, after command: String
    ) throws -> (report: SyncReport, passes: Int) {
        let facts = SourceFacts(
            name: "source", size: content.count, content: .empty, logicalSector: nil, identity: nil)
        let target = try rig.open(image, for: .init(mode: .write, block: 4096, source: facts))
        let count = Mutex(0)
        var faults = FaultyDevice.Faults()
        let script = "\(command); : 3<>\(image)"
        faults.onRead = { range in
            guard range.offset == 0 else { return }
            let pass = count.withLock { count in
                count += 1
                return count
            }
            if visits.contains(pass) { _ = try? must("sh", "-c", script) }
        }
        let report = synchronize(
            source: FaultyDevice(MemoryDevice(content), faults), target: target,
            options: SyncOptions(verifies: verifies, concurrency: 1), control: RunControl())
        target.release(isComplete: report.isGood)
        #expect(report.isGood, "\(report)")
        return (report, count.withLock { $0 })
    }

    /// A new time of change stands for a write that the kernel does not report.
    private var change: String { "sleep 0.02; chmod 0600 \(image)" }

    @Test(arguments: [(true, [2]), (true, [1, 2]), (false, [1, 2])] as [(Bool, Set<Int>)])
    func `a remote target that was open during the comparison is compared again`(
        verifies: Bool, visits: Set<Int>
    ) throws {
        let (report, passes) = try push(verifies: verifies, visits: visits, after: change)
        #expect(passes == 3)
        #expect(report.targetWasOpened && !report.targetChanged)
    }

    @Test(arguments: [false, true])
    func `a remote target that is opened again and again is no success`(verifies: Bool) throws {
        let (report, passes) = try push(verifies: verifies, visits: [1, 2, 3], after: change)
        #expect(passes == 3)
        #expect(report.targetIsUnproven && report.targetChanged)
    }

    @Test func `a remote target that is opened again and again without a change is a success`()
        throws
    {
        let (report, passes) = try push(verifies: false, visits: [1, 2, 3], after: "true")
        #expect(passes == 2)
        #expect(report.targetWasOpened && !report.targetChanged)
    }
}
