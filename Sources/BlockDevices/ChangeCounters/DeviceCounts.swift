// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CLinuxBlock
internal import Glibc
internal import LinuxIO

/// The kernel's counts of sectors written and discarded (Documentation/block/stat.rst, fields 7 and
/// 14).
///
/// The number of writes also grows with flushes, which a program that only reads may cause.
struct DeviceCounts {
    let sectors: [Int]
    /// Changes when a disk is attached or a volume is activated
    /// (Documentation/ABI/stable/sysfs-block, diskseq).
    let disk: Int?

    var marks: [Int] { sectors + (disk.map { [$0] } ?? []) }

    /// - Parameter entry: the directory in sysfs; a partition's is within that of its disk.
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

    /// Whether the kernel counts although `queue/iostats` is 0.
    ///
    /// Before Linux 6.6 ("dm: support turning off iostat accounting") the device mapper always
    /// counts but reports 0 (Documentation/ABI/stable/sysfs-block, iostats).
    private static func countsAnyway(_ entry: String) -> Bool {
        guard readSmallFile("\(entry)/dm/name") != nil, let version = kernelVersion() else {
            return false
        }
        return version < (6, 6)
    }
}

/// The state of a loop device's backing file.
struct LoopBacking {
    /// The file, the range within it, and the values that a write changes.
    let marks: [Int]

    init(marks: [Int]) { self.marks = marks }

    /// Asks the kernel (`LOOP_GET_STATUS64`); `nil` if the file is a device or missing, or for a
    /// reason of `settledStatus`.
    ///
    /// - Parameters:
    ///   - descriptor: of the loop device or a partition of it.
    ///   - path: from sysfs.
    init?(of descriptor: Int32, path: String) {
        var answer = clb_loop_backing()
        guard clb_get_loop_backing(descriptor, &answer) == 0 else { return nil }
        guard answer.block_device == 0, let file = try? OwnedDescriptor.open(path, flags: O_RDONLY),
            let status = settledStatus(of: file), status.fileSystem == answer.device,
            status.inode == answer.inode
        else { return nil }
        marks =
            [answer.offset, answer.size_limit, status.fileSystem, status.inode]
            .map { Int(truncatingIfNeeded: $0) } + [status.size, status.changed]
    }
}

/// Reads a file's status when a later change is certain to get another time.
///
/// It waits for a tick of the kernel's clock, or for two seconds if the file system stores whole
/// seconds. It writes the file's pages back, because a mapped page can otherwise be stored to again
/// without a new time. It is `nil` if the file keeps changing, or outside `CountedFileSystem`.
func settledStatus(of file: borrowing OwnedDescriptor) -> FileStatus? {
    var type: Int64 = 0
    guard clb_get_file_system_type(file.rawValue, &type) == 0,
        CountedFileSystem.types.contains(type)
    else { return nil }
    for _ in 0..<3 {
        guard let status = try? file.status() else { return nil }
        let unit = status.changed % 1_000_000_000 == 0 ? 2_100_000_000 : 40_000_000
        var now = timespec()
        clock_gettime(CLOCK_REALTIME, &now)
        let age = now.tv_sec &* 1_000_000_000 &+ now.tv_nsec &- status.changed
        // The clock was set back, or the time is another machine's.
        guard age >= 0 else { return nil }
        if age < unit {
            pause(for: .nanoseconds(unit - age + 1_000_000))
            continue
        }
        guard (try? file.synchronize()) != nil else { return nil }
        if let after = try? file.status(), after == status { return status }
    }
    return nil
}
