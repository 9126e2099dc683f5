// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

/// The kinds of block devices that have a persistent change counter.
///
/// A kind must meet two conditions. The kernel's source shows that every write, discard, zero range
/// and change of table changes the values that are read here. A scenario of tools/lab has tried
/// each of them.
///
/// A target of any other kind is compared as a whole. md linear counts nothing, md raid0 no
/// discards, and other levels vary between kernels. Tables of device-mapper devices other than
/// logical volumes may be replaced and restored without a trace. Drivers that are not listed below
/// are excluded as well.
enum CountedKind: Hashable, CaseIterable {
    /// A disk whose driver takes requests (`mq` in sysfs).
    ///
    /// The block layer counts every request in `blk_account_io_done` of block/blk-mq.c, including
    /// discards and zero ranges. Tests/Lab/counters-disks.sh and counters-buses.sh, "disk".
    case disk
    /// A partition of such a disk; writes through the disk's device file count on the disk alone.
    ///
    /// The difference between the disk and all its partitions shows them. The same scenarios,
    /// "partition".
    case partition
    /// A loop device or its partition; every write changes the backing file's time of change.
    ///
    /// The file must be in a `CountedFileSystem`. Tests/Lab/counters-disks.sh, "loop".
    case loop
    /// A logical volume whose tables consist of `volumeTargets`.
    ///
    /// The device mapper counts every request on the volume itself (`dm_io_acct` of
    /// drivers/md/dm.c). Tests/Lab/counters-volumes.sh and counters-thin.sh.
    case volume

    /// The drivers whose disks count requests, by the prefix of their disk names.
    ///
    /// Tests/Lab/counters-disks.sh covers ubd and sd; counters-buses.sh covers nvme, vd, and sd on
    /// SATA and SCSI. Excluded are disks that other machines write to or that can be rolled back
    /// (nbd, drbd, rbd, zd), drivers that take bios and count for themselves (zram, pmem, ram), and
    /// drivers that the lab could not try (mmcblk).
    static let diskDrivers = ["nvme", "sd", "ubd", "vd"]

    /// The device-mapper targets of a logical volume that Tests/Lab/counters-volumes.sh or
    /// counters-thin.sh tries.
    ///
    /// A merge into a `snapshot-origin` writes to the `…-real` device, whose counts are read as
    /// well.
    static let volumeTargets: Set<String> = [
        "linear", "striped", "thin", "snapshot-origin", "raid", "mirror",
    ]

    /// The levels that the lab has tried.
    static let raidLevels: Set<String> = ["raid1"]
}

/// The file systems whose time of change (ctime) is a persistent change counter.
///
/// They set it with every write, and with the first store through a mapping after write-back
/// (page_mkwrite). tmpfs leaves pages writable, so a later store leaves no trace. Network and
/// cluster file systems have other writers. Tests/Lab/counters-disks.sh, "image", and
/// CountedFileSystemTests.
enum CountedFileSystem {
    /// Values of `f_type` from statfs(2): ext2 to ext4, XFS, btrfs (linux/magic.h).
    static let types: Set<Int64> = [0xEF53, 0x5846_5342, 0x9123_683E]
}

struct NoChangeCounter: Error, Hashable {
    /// Such as `it is an md array`.
    var reason: String

    init(_ reason: String) { self.reason = reason }
}
