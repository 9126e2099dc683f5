// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockClient
import BlockDevices
import DeviceProbe
import TestSupport
import Testing
import WireProtocol

/// A device of a server is a block device like those of this machine.
@Suite(.blocking, .timeLimit(.minutes(60))) struct RemoteConformanceTests {
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
    func `a remote device keeps what is written`(implementation: Implementation) throws {
        #expect(try Conformance.keepsWhatIsWritten(implementation) == [])
    }

    @Test(arguments: all)
    func `a ragged end of a remote device is read, written and zeroed like any other byte`(
        implementation: Implementation
    ) throws {
        #expect(try Conformance.hasRaggedEnds(implementation) == [])
    }

    @Test(.enabled(if: isRoot, "block devices need root, and are left out"))
    func `block devices are among those tested`() { #expect(Self.all.count == 4) }

    @Test(arguments: all)
    func `transfers done together give the same bytes as transfers done one by one`(
        implementation: Implementation
    ) throws {
        #expect(try Conformance.transfersTogether(implementation) == [])
    }

    @Test(arguments: all)
    func `reading beyond the end of a remote device is an error, not a short read`(
        implementation: Implementation
    ) throws {
        #expect(try Conformance.failsBeyondTheEnd(implementation) == [])
    }
}
