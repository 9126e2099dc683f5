// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CLinuxBlock
internal import LinuxIO

extension BlockSpecialFile {
    /// What the kernel counts on the device.
    ///
    /// They begin anew when a disk comes back, or a volume is activated again; but its number, which
    /// kernels from 5.15 on have, is another one then.
    package func contentStamp() -> ContentStamp? {
        DeviceCounts(entry).map { ContentStamp($0.marks) }
    }

    /// What the kernel counts on the device, and of a logical volume what is below it.
    ///
    /// A classic snapshot is merged into its origin below that one's device: on the origin nothing is
    /// counted then. So there are its table, which another one takes the place of with the first and
    /// the last snapshot, and the counts of the device that has the origin's blocks (`…-real`). A
    /// thin volume has another table after a merge, a volume that was cut and has grown again mostly.
    package func lastingStamp() -> ContentStamp? {
        guard let counts = DeviceCounts(entry), counts.disk != nil else { return nil }
        guard let uuid = readSmallFile("\(entry)/dm/uuid"), uuid.hasPrefix("LVM-") else {
            return ContentStamp(counts.marks)
        }
        guard let table = MapperTable(of: number) else { return nil }
        var marks = counts.marks + [table.fingerprint]
        if table.targets.contains(where: {
            ["snapshot-origin", "snapshot-merge"].contains($0.type)
        }) {
            for slave in namesInDirectory("\(entry)/slaves") {
                let below = "/sys/class/block/\(slave)"
                guard readSmallFile("\(below)/dm/uuid")?.hasSuffix("-real") == true else {
                    continue
                }
                guard let real = DeviceCounts(below), real.disk != nil else { return nil }
                marks += real.marks
            }
        }
        return ContentStamp(marks)
    }

    /// Its directory in sysfs.
    private var entry: String { "/sys/dev/block/\(clb_major(number)):\(clb_minor(number))" }
}

/// What the kernel counts on a device that changes with what it holds.
///
/// Source: Documentation/block/stat.rst, fields 7 and 14: sectors written and discarded. The number of
/// writes also grows with flushes, which whoever opens the device to read may cause.
private struct DeviceCounts {
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
