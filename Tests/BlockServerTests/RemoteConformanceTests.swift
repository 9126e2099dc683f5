// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockClient
import BlockDevices
import DeviceProbe
import TestSupport
import Testing
import WireProtocol

/// A device of a server is a block device like those of this machine.
@Suite(.blocking, .timeLimit(.minutes(30))) struct RemoteConformanceTests {
    /// Those that this user can make; a test that is skipped shows when that is not all.
    static let all = every.filter { isRoot || !$0.needsRoot }

    private static let every = [
        Implementation("image that the server creates") { size in
            let rig = try ServerRig()
            return try open(rig.image("image"), size, rig, nil)
        },
        Implementation("image that is there") { size in
            let rig = try ServerRig()
            let image = try rig.scratch.sparseFile("image", size: size)
            return try open(image, size, rig, nil)
        },
        loop(sector: 512),
        loop(sector: 4096),
    ]

    private static func loop(sector: Int) -> Implementation {
        Implementation("block device, \(sector)-byte sectors", needsRoot: true) { size in
            let loop = try LoopDevice(size: size, sectorSize: sector)
            return try open(loop.path, size, try ServerRig(exporting: [loop.path]), loop)
        }
    }

    private static func open(
        _ path: String, _ size: Int, _ rig: ServerRig, _ keeper: Any?
    ) throws -> (any BlockDevice, Any?) {
        let facts = SourceFacts(
            name: "source", size: size, content: .empty, logicalSector: nil, identity: nil)
        let device = try rig.open(
            path, for: .init(mode: .write, block: 4096, source: facts, policy: GatePolicy()))
        return (device, [rig, keeper as Any])
    }

    @Test(arguments: all)
    func `it keeps what is written`(implementation: Implementation) throws {
        let (device, keeper) = try implementation.make(3 << 20)
        try withExtendedLifetime(keeper) {
            let broken = try Conformance.keepsWhatIsWritten(device, size: 3 << 20)
            #expect(broken == [])
        }
    }

    @Test(arguments: all)
    func `a ragged end is read, written and zeroed like any other byte`(
        implementation: Implementation
    ) throws {
        let (device, keeper) = try implementation.make(1 << 20)
        try withExtendedLifetime(keeper) {
            let broken = try Conformance.hasRaggedEnds(device)
            #expect(broken == [])
        }
    }

    @Test(.enabled(if: isRoot, "block devices need root, and are left out"))
    func `block devices are among those tested`() { #expect(Self.all.count == 4) }

    @Test(arguments: all)
    func `what is done together is as if it were done one by one`(
        implementation: Implementation
    ) throws {
        let (device, keeper) = try implementation.make((1 << 20) + 8192)
        try withExtendedLifetime(keeper) {
            let broken = try Conformance.transfersTogether(device)
            #expect(broken == [])
        }
    }

    @Test(arguments: all)
    func `reading beyond the end is an error, not a short read`(
        implementation: Implementation
    ) throws {
        let (device, keeper) = try implementation.make(1 << 20)
        withExtendedLifetime(keeper) { #expect(Conformance.failsBeyondTheEnd(device)) }
    }
}
