// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

/// Loop devices that another program moves to other bytes of their backing file during a run.
@Suite(.blocking, .timeLimit(.minutes(60)), .enabled(if: isRoot, "loop devices need root"))
struct LoopMoveTests {
    private let size = 12 << 20
    private let scratch: ScratchDirectory
    private let image: String
    /// Has room for two loop devices.
    private let backing: String

    init() throws {
        scratch = try ScratchDirectory()
        image = try scratch.filledFile("image", size: size, seed: 1)
        backing = try scratch.sparseFile("backing", size: 2 * size)
    }

    /// Sets offset and size limit of an attached loop device, which losetup(8) cannot do.
    ///
    /// The kernel may answer EAGAIN while udev has pages of the device in the page cache.
    private static let mover = """
        import fcntl, struct, sys, time
        device = open(sys.argv[1])
        status = bytearray(232)
        fcntl.ioctl(device, 0x4C05, status)
        struct.pack_into("<QQ", status, 24, int(sys.argv[2]), int(sys.argv[3]))
        for attempt in range(3000):
            try:
                fcntl.ioctl(device, 0x4C04, bytes(status))
                break
            except BlockingIOError:
                time.sleep(0.01)
        else:
            sys.exit("the device cannot be moved")
        """

    private func move(_ loop: LoopDevice, to offset: Int) throws {
        try must("python3", "-c", Self.mover, loop.path, "\(offset)", "\(size)")
    }

    /// Attaches a loop device to half of the backing file.
    private func attach(at offset: Int) throws -> LoopDevice {
        let loop = try LoopDevice(backingFile: backing, offset: offset)
        try move(loop, to: offset)
        return loop
    }

    private var reason: String {
        "it has other bytes now: its offset in the file behind it was changed from 0 to \(size)"
    }

    @Test(arguments: [false, true])
    func `a target that was moved is no success`(isServed: Bool) throws {
        let target = try attach(at: 0)
        let server = try isServed ? ServeProcess("\(target.path):rw") : nil
        let name = server?.url(target.path) ?? target.path
        let result = try blkferry(slowly: [image, name], once: { holdsData(backing) }) {
            try move(target, to: size)
        }
        withExtendedLifetime(server) {}
        #expect(result.status == 3, "\(result)")
        #expect(result.errors.contains("\(name): check at the end: \(reason)"), "\(result)")
    }

    @Test(arguments: [false, true])
    func `a source that was moved is no success`(isServed: Bool) throws {
        try fill(backing, seed: 2, size: 2 * size)
        let source = try attach(at: 0)
        let server = try isServed ? ServeProcess(source.path) : nil
        let name = server?.url(source.path) ?? source.path
        let copy = scratch.file("copy")
        let result = try blkferry(slowly: [name, copy], once: { holdsData(copy) }) {
            try move(source, to: size)
        }
        withExtendedLifetime(server) {}
        #expect(result.status == 3, "\(result)")
        #expect(result.errors.contains("\(name): check at the end: \(reason)"), "\(result)")
    }

    @Test(arguments: [false, true])
    func `only a loop device that was moved over the target is in its way`(isMoved: Bool) throws {
        let target = try attach(at: 0)
        let neighbour = try attach(at: size)
        let result = try blkferry(slowly: [image, target.path], once: { holdsData(backing) }) {
            if isMoved { try move(neighbour, to: 0) }
            try must(
                "dd", "if=/dev/zero", "of=\(neighbour.path)", "bs=4K", "count=1", "oflag=direct",
                "conv=nocreat", "status=none")
        }
        withExtendedLifetime((target, neighbour)) {}
        #expect(result.status == (isMoved ? 1 : 0), "\(result)")
        #expect(
            result.errors.contains("another program wrote to it during the run") == isMoved,
            "\(result)")
    }
}
