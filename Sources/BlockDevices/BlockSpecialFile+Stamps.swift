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

    /// What the kernel counts on the device, and of one of the device mapper or a loop device what is
    /// below it.
    ///
    /// A device of the mapper can get another table, and other blocks with it, at any time.
    /// A classic snapshot is merged into its origin below that one's device: on the origin nothing is
    /// counted then. So there are its table, which another one takes the place of with the first and
    /// the last snapshot, and the counts of the device that has the origin's blocks (`…-real`). A
    /// thin volume has another table after a merge, a volume that was cut and has grown again mostly.
    ///
    /// A loop device can get another file without the kernel giving it another number (before "block:
    /// increment diskseq on all media change events" of Linux 6.5); so its file is looked at, too.
    /// Disks that other machines write to as well have no stamp, nor have those that are set back
    /// without anything being counted.
    package func lastingStamp() -> ContentStamp? {
        guard let counts = DeviceCounts(entry), counts.disk != nil, !isShared else { return nil }
        if let path = readSmallFile("\(entry)/loop/backing_file")
            ?? readSmallFile("\(entry)/../loop/backing_file")
        {
            guard let backing = LoopBacking(of: descriptor, path: path) else { return nil }
            return ContentStamp(counts.marks + backing.marks)
        }
        guard readSmallFile("\(entry)/dm/name") != nil else { return ContentStamp(counts.marks) }
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

    /// Whether it is a disk that another machine may write to, or that can become another one, of
    /// which nothing is counted here.
    private var isShared: Bool {
        let lines = readSmallFile("\(entry)/uevent")?.split(separator: "\n") ?? []
        let name = lines.first { $0.hasPrefix("DEVNAME=") }?.dropFirst("DEVNAME=".count)
        return name.map { isNameOfSharedDisk(String($0)) } ?? true
    }

    /// Its directory in sysfs.
    private var entry: String { "/sys/dev/block/\(clb_major(number)):\(clb_minor(number))" }
}

/// Whether the kernel gives names like this to disks of other machines, or of ZFS, which can roll them
/// back: `nbd0`, `drbd1p1`, `rbd0`, `zd16`.
func isNameOfSharedDisk(_ name: String) -> Bool {
    ["nbd", "drbd", "rbd", "zd"].contains { driver in
        name.hasPrefix(driver) && name.dropFirst(driver.count).first?.isNumber == true
    }
}
