// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CLinuxBlock
internal import Glibc
internal import LinuxIO

/// What the kernel counts on a device that changes with what it holds.
///
/// Source: Documentation/block/stat.rst, fields 7 and 14: sectors written and discarded. The number of
/// writes also grows with flushes, which whoever opens the device to read may cause.
struct DeviceCounts {
    let sectors: [Int]
    /// Another one each time a disk is attached, or a volume activated.
    ///
    /// Source: Documentation/ABI/stable/sysfs-block, diskseq.
    let disk: Int?

    var marks: [Int] { sectors + (disk.map { [$0] } ?? []) }

    /// - Parameter entry: the device's directory in sysfs; a partition's is within that of its disk.
    init?(_ entry: String) {
        func read(_ name: String) -> String? {
            readSmallFile("\(entry)/\(name)") ?? readSmallFile("\(entry)/../\(name)")
        }
        guard let text = readSmallFile("\(entry)/stat"),
            read("queue/iostats") != "0" || Self.countsAnyway(entry)
        else { return nil }
        let fields = text.split(whereSeparator: \.isWhitespace).compactMap { Int($0) }
        guard fields.count >= 7 else { return nil }
        sectors = [6, 13].filter { $0 < fields.count }.map { fields[$0] }
        disk = read("diskseq").flatMap { Int($0) }
    }

    /// Whether it is counted on though it says that it is not (Documentation/ABI/stable/sysfs-block,
    /// iostats).
    ///
    /// Before Linux 6.6 ("dm: support turning off iostat accounting") the device mapper counts
    /// always, and says 0 nevertheless.
    private static func countsAnyway(_ entry: String) -> Bool {
        guard readSmallFile("\(entry)/dm/name") != nil,
            let release = readSmallFile("/proc/sys/kernel/osrelease")
        else { return false }
        let parts = release.split(separator: ".", maxSplits: 2)
        guard parts.count > 1, let major = Int(parts[0]),
            let minor = Int(parts[1].prefix { $0.isASCII && $0.isNumber })
        else { return false }
        return (major, minor) < (6, 6)
    }
}

/// The file that a loop device stands on, as far as that changes with what it holds.
struct LoopBacking {
    /// Which file it is, from where on, and what a write to it changes.
    let marks: [Int]

    /// Asks the kernel (`LOOP_GET_STATUS64`).
    ///
    /// `nil` where the file is not found any more, or goes on to change; and where it is a device, which
    /// tells more itself.
    ///
    /// - Parameters:
    ///   - descriptor: the loop device's, or one of its partitions'.
    ///   - path: of the file, as sysfs tells it.
    init?(of descriptor: Int32, path: String) {
        var answer = clb_loop_backing()
        guard clb_get_loop_backing(descriptor, &answer) == 0 else { return nil }
        guard answer.block_device == 0, let status = settled({ try? FileStatus(path: path) }),
            status.fileSystem == answer.device, status.inode == answer.inode
        else { return nil }
        marks =
            [answer.offset, answer.size_limit, status.fileSystem, status.inode]
            .map { Int(truncatingIfNeeded: $0) } + [status.size, status.changed]
    }
}

/// A file's status, once a change that comes later will have another time.
///
/// It waits for that: a tick of the kernel's clock, or two seconds where the file system counts whole
/// ones.
///
/// - Parameter look: gives the status as it is.
/// - Returns: the status; `nil` where there is none, or the file goes on to change.
func settled(_ look: () -> FileStatus?) -> FileStatus? {
    for _ in 0..<3 {
        guard let status = look() else { return nil }
        let unit = status.changed % 1_000_000_000 == 0 ? 2_100_000_000 : 40_000_000
        var now = timespec()
        clock_gettime(CLOCK_REALTIME, &now)
        let age = now.tv_sec &* 1_000_000_000 &+ now.tv_nsec &- status.changed
        if age >= unit { return status }
        // A clock that was set back, or that of another machine.
        guard age >= 0 else { return nil }
        usleep(UInt32((unit - age) / 1000 + 1000))
    }
    return nil
}
