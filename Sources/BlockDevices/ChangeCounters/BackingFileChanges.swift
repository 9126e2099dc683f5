// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CLinuxBlock
internal import LinuxIO

/// Counts changes of a loop device's backing file that no loop device has made.
///
/// A program that writes to the backing file changes its size or time of change (ctime), but the
/// kernel counts nothing on the loop device. Writes through a loop device change the time as well,
/// and may be to another partition or another range. The kernel counts them on that loop device.
struct BackingFileChanges {
    private let descriptor: Int32
    private let disk: SystemDevice
    private var last: Reading
    private(set) var count = 0

    private struct Reading {
        /// Size and time of change.
        let file: [Int]
        /// The counts of each loop device on the file, by the kernel's name.
        let sectors: [String: [Int]]
    }

    /// `nil` if the device is no loop device, or if the path in sysfs does not lead to the file
    /// here.
    ///
    /// - Parameters:
    ///   - descriptor: of the loop device or a partition of it, which must stay open.
    ///   - disk: the loop device.
    init?(of descriptor: Int32, disk: SystemDevice) {
        guard disk.attribute("loop/backing_file") != nil else { return nil }
        // Read before the file: a write that is not counted yet is counted later.
        let sectors = Self.sectors(disk)
        guard let file = Self.file(descriptor, disk) else { return nil }
        self.descriptor = descriptor
        self.disk = disk
        last = Reading(file: file, sectors: sectors)
    }

    /// Compares the file with the last reading.
    mutating func update() {
        let sectors = Self.sectors(disk)
        guard let file = Self.file(descriptor, disk) else { return }
        if file != last.file && !isExplained() { count += 1 }
        last = Reading(file: file, sectors: sectors)
    }

    /// Whether a loop device has written since the last reading.
    ///
    /// The kernel counts a write when it is complete, which is after the file has changed.
    private func isExplained() -> Bool {
        for wait in Self.waits {
            pause(for: wait)
            if Self.sectors(disk) != last.sectors { return true }
        }
        return false
    }

    private static let waits: [Duration] = [.zero, .milliseconds(50), .milliseconds(200)]

    /// The corresponding C functions are `ioctl` with `LOOP_GET_STATUS64` and `stat`.
    private static func file(_ descriptor: Int32, _ disk: SystemDevice) -> [Int]? {
        var answer = clb_loop_backing()
        guard clb_get_loop_backing(descriptor, &answer) == 0, answer.block_device == 0,
            let path = disk.attribute("loop/backing_file"),
            let status = try? FileStatus(path: path), status.fileSystem == answer.device,
            status.inode == answer.inode
        else { return nil }
        return [status.size, status.changed]
    }

    private static func sectors(_ disk: SystemDevice) -> [String: [Int]] {
        let path = disk.attribute("loop/backing_file")
        var sectors: [String: [Int]] = [:]
        for name in namesInDirectory("\(disk.sys)/class/block") where name.hasPrefix("loop") {
            guard let loop = SystemDevice(named: name, sys: disk.sys),
                let file = loop.attribute("loop/backing_file"), file == path
            else { continue }
            sectors[name] = DeviceCounts(loop.directory)?.sectors
        }
        return sectors
    }
}
