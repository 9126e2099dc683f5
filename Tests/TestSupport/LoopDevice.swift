// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CTestSupport
internal import Glibc
internal import LinuxIO
internal import SystemPackage

/// Whether the tests may make loop devices and mount: only the superuser can.
package let isRoot = geteuid() == 0

/// A real block device on a sparse file, detached with this object or this process, even if that
/// is killed.
package final class LoopDevice: Sendable {
    /// Its device file, such as `/dev/loop7`.
    package let path: String
    package let backingFile: String
    private let descriptor: OwnedDescriptor
    private let scratch: ScratchDirectory?

    /// Attaches a loop device.
    ///
    /// - Parameters:
    ///   - size: of a new, empty backing file, in bytes.
    ///   - sectorSize: logical sector, in bytes.
    ///   - readOnly: refuse writes.
    ///   - partitions: have the kernel look for partitions (`/dev/loopNpM`).
    /// - Throws: what the system says; EACCES without root.
    package convenience init(
        size: Int, sectorSize: Int = 512, readOnly: Bool = false, partitions: Bool = false
    ) throws {
        let scratch = try ScratchDirectory()
        try self.init(
            backingFile: try scratch.sparseFile("disk", size: size), scratch: scratch,
            sectorSize: sectorSize, readOnly: readOnly, partitions: partitions)
    }

    /// Attaches a loop device to a file or block device that exists.
    package init(
        backingFile: String, scratch: ScratchDirectory? = nil, sectorSize: Int = 512,
        readOnly: Bool = false, partitions: Bool = false, offset: Int = 0
    ) throws {
        let backing = try OwnedDescriptor.open(
            backingFile, flags: readOnly ? O_RDONLY : O_RDWR)
        var number: Int32 = -1
        let device = try retryingInterrupts {
            cts_attach_loop(
                backing.rawValue, UInt32(sectorSize), readOnly, partitions, UInt64(offset), &number)
        }
        descriptor = OwnedDescriptor(owning: device)
        path = "/dev/loop\(number)"
        self.backingFile = backingFile
        self.scratch = scratch
    }
}
