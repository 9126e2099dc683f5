// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import CLinuxBlock
import DeviceProbe
import Foundation
import Glibc
import LinuxIO
import Synchronization
import SystemPackage
import TestSupport
import Testing

@Suite(.enabled(if: isRoot, "loop devices need root"), .blocking, .timeLimit(.minutes(60)))
struct UdevNoticeTests {
    private let scratch: ScratchDirectory

    init() throws { scratch = try ScratchDirectory() }

    /// The file of sysfs that takes a request for an event, in a directory of the test.
    private func eventFile(of number: UInt64) throws -> String {
        let directory = scratch.file("sys/dev/block/\(clb_major(number)):\(clb_minor(number))")
        try must("mkdir", "-p", directory)
        return "\(directory)/uevent"
    }

    private func isLocked(_ path: String) throws -> Bool {
        try run("flock", "--shared", "--nonblock", path, "true").status != 0
    }

    @Test func `udev is asked for an event when the device is closed`() throws {
        let loop = try LoopDevice(size: MiB)
        let device = Mutex<BlockSpecialFile?>(
            try BlockSpecialFile(path: loop.path, name: loop.path, access: .readWrite))
        let number = try FileStatus(path: loop.path).device
        let event = try eventFile(of: number)
        // The request waits until the test opens the pipe.
        try must("mkfifo", event)
        let isLockedByTest = try device.withLock { device throws(IOError) in
            device?.keepUntilClosed(
                UdevNotice(
                    number, ignoresLock: false, path: loop.path, sys: scratch.file("sys"),
                    directory: scratch.file("run")))
            return try device?.lock(exclusive: true)
        }
        #expect(isLockedByTest == true)
        #expect(try isLocked(loop.path))
        let closer = Thread { device.withLock { $0 = nil } }
        closer.start()
        #expect(try becomesTrue { try !isLocked(loop.path) })
        #expect(!closer.isFinished)
        let reader = open(event, O_RDONLY | O_NONBLOCK)
        #expect(reader >= 0)
        #expect(becomesTrue { closer.isFinished })
        close(reader)
        #expect(!FileManager.default.fileExists(atPath: scratch.file("run")))
    }

    @Test func `a file marks a target whose lock udev ignores, before and after`() throws {
        let number = clb_makedev(253, 3)
        let event = try eventFile(of: number)
        try must("touch", event)
        func requests() throws -> String {
            defer { truncate(event, 0) }
            return try String(contentsOfFile: event, encoding: .utf8)
        }
        for _ in 0..<2 {
            do {
                let notice = UdevNotice(
                    number, ignoresLock: true, path: "/nowhere", sys: scratch.file("sys"),
                    directory: scratch.file("run"))
                defer { withExtendedLifetime(notice) {} }
                #expect(FileManager.default.fileExists(atPath: scratch.file("run/targets/253:3")))
                #expect(try requests() == "change")
            }
            #expect(try requests() == "change")
        }
        #expect(FileManager.default.fileExists(atPath: scratch.file("run/targets/253:3")))
    }

    @Test func `the gate marks partitions, and locks disks`() throws {
        let disk = try PartitionedDisk()
        for path in [disk.first, disk.path] {
            let number = try FileStatus(path: path).device
            let mark = "/run/blkferry/targets/\(clb_major(number)):\(clb_minor(number))"
            // Of an earlier run.
            unlink(mark)
            for isDryRun in [true, false] {
                let size = path == disk.path ? 64 * MiB : 16 * MiB
                let target = try SafetyGate.admit(
                    path, source: facts(size: size),
                    policy: GatePolicy(overwrite: true, isDryRun: isDryRun))
                #expect(try isLocked(path))
                let isMarked = FileManager.default.fileExists(atPath: mark)
                #expect(isMarked == (path == disk.first && !isDryRun))
                withExtendedLifetime(target) {}
            }
        }
    }
}
