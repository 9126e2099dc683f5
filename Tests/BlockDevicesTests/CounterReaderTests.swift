// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport
import Testing

@testable import BlockDevices

/// Which kinds of devices have a persistent change counter, on a tree of files in the form of sysfs;
/// what the kernel counts on each of them is tried in Tests/Lab/counters-*.sh.
@Suite(.blocking) struct CounterReaderTests {
    private let scratch: ScratchDirectory
    private let group = String(repeating: "g", count: 32)
    private let volume = String(repeating: "v", count: 32)

    init() throws { scratch = try ScratchDirectory() }

    private static let stat = "8 0 64 1 9 0 72 3 0 1 1 0 0 0 0 0 0"

    /// Adds a device to sysfs, or replaces it.
    private func add(
        _ name: String, _ number: String, in parent: String = "virtual/block",
        slaves: [String] = [], _ attributes: [String: String] = [:]
    ) throws {
        let directory = scratch.file("devices/\(parent)/\(name)")
        try must("rm", "-rf", "\(directory)/slaves")
        for path in ["\(directory)/slaves", scratch.file("class/block"), scratch.file("dev/block")]
        {
            try must("mkdir", "-p", path)
        }
        let all = ["dev": number, "stat": Self.stat].merging(attributes) { $1 }
        for (file, text) in all {
            let path = "\(directory)/\(file)"
            try must("mkdir", "-p", (path as NSString).deletingLastPathComponent)
            try Data((text + "\n").utf8).write(to: URL(fileURLWithPath: path))
        }
        for slave in slaves { try must("ln", "-s", "..", "\(directory)/slaves/\(slave)") }
        for link in ["class/block/\(name)", "dev/block/\(number)"] {
            try must("ln", "-sfn", directory, scratch.file(link))
        }
    }

    /// Adds a disk that takes requests.
    private func addDisk(
        _ name: String, _ number: String, in parent: String = "pci0000:00/ata1/host0/block",
        _ attributes: [String: String] = [:]
    ) throws {
        let usual = ["mq/0/cpu_list": "0", "diskseq": "7", "queue/iostats": "1"]
        try add(name, number, in: parent, usual.merging(attributes) { $1 })
    }

    private func addMapped(
        _ name: String, _ number: String, uuid: String, slaves: [String],
        _ attributes: [String: String] = [:]
    ) throws {
        let usual = ["dm/name": name, "dm/uuid": uuid, "diskseq": "9", "queue/iostats": "1"]
        try add(name, number, slaves: slaves, usual.merging(attributes) { $1 })
    }

    private func counter(
        of name: String, tables: [String: String] = [:], versions: ClosedRange<Int>? = 3...5,
        isBacked: Bool = true
    ) throws -> Result<ChangeCounter, NoChangeCounter> {
        let reader = CounterReader(
            sys: scratch.path,
            table: { number in
                tables.first { SystemDevice(named: $0.key, sys: scratch.path)?.number == number }
                    .map { MapperTable(lines: $0.value) }
            }, backing: { _ in isBacked ? LoopBacking(marks: [1, 2]) : nil },
            versions: { _, _ in versions })
        let device = try #require(SystemDevice(named: name, sys: scratch.path))
        do throws(NoChangeCounter) { return .success(try reader.counter(of: device)) } catch {
            return .failure(error)
        }
    }

    private func reason(
        of name: String, tables: [String: String] = [:], versions: ClosedRange<Int>? = 3...5,
        isBacked: Bool = true
    ) throws -> String? {
        guard
            case .failure(let error) = try counter(
                of: name, tables: tables, versions: versions, isBacked: isBacked)
        else { return nil }
        return error.reason
    }

    // MARK: Disks

    @Test(arguments: ["sda", "sdaa", "vdb", "ubdc", "nvme0n1"])
    func `a disk that takes requests has a counter`(name: String) throws {
        try addDisk(name, "8:0", ["device/transport": "pcie"])
        #expect(try reason(of: name) == nil)
    }

    @Test(arguments: [
        "nbd0", "drbd1", "rbd0", "zd16", "zram0", "ram0", "pmem0", "md0", "bcache0", "xvda",
        "nvme0c0n1", "nullb0", "sd", "sr0", "mmcblk0",
    ])
    func `a disk of any other driver has no counter`(name: String) throws {
        try addDisk(name, "8:0", ["device/transport": "pcie"])
        #expect(try reason(of: name) != nil)
    }

    @Test
    func `a disk that is zoned, without a sequence number or without statistics has no counter`()
        throws
    {
        let changes = [
            ["queue/iostats": "0"], ["queue/zoned": "host-managed"], ["diskseq": ""],
            ["stat": "1 2 3"],
        ]
        for (index, change) in changes.enumerated() {
            let name = "sd" + ["a", "b", "c", "d"][index]
            try addDisk(name, "8:\(index)", change)
            #expect(try reason(of: name) != nil, "\(change)")
        }
        try add("sdz", "8:200", ["diskseq": "1", "queue/iostats": "1"])
        #expect(try reason(of: "sdz")?.contains("not known to be counted") == true)
    }

    @Test(arguments: [
        "platform/host3/session1/target3:0:0/block", "pci0000:00/host1/rport-1:0-0/block",
        "virtual/nvme-fabrics/ctl/nvme0", "virtual/nvme-subsystem/nvme-subsys0",
    ])
    func `a disk that other machines may write to has no counter`(parent: String) throws {
        try addDisk("sda", "8:0", in: parent)
        try addDisk("nvme0n1", "259:0", in: parent, ["device/transport": "pcie"])
        #expect(try reason(of: "sda") == "other machines may write to it")
        #expect(try reason(of: "nvme0n1") == "other machines may write to it")
        try addDisk("nvme1n1", "259:1", ["device/transport": "tcp"])
        #expect(try reason(of: "nvme1n1") == "other machines may write to it")
    }

    // MARK: Partitions

    private func addPartitions(disk: Int, first: Int, second: Int, start: Int = 2048) throws {
        func stat(_ sectors: Int) -> String { "8 0 64 1 9 0 \(sectors) 3 0 1 1 0 0 0 0 0 0" }
        let parent = "pci0000:00/ata1/host0/block"
        try addDisk("sda", "8:0", ["stat": stat(disk)])
        for (number, sectors) in [(1, first), (2, second)] {
            try add(
                "sda\(number)", "8:\(number)", in: "\(parent)/sda",
                [
                    "partition": "\(number)", "start": "\(start)", "size": "64",
                    "stat": stat(sectors),
                ])
        }
    }

    @Test
    func `a partition's counter counts writes through the disk, and none to another partition`()
        throws
    {
        try addPartitions(disk: 100, first: 20, second: 30)
        let before = try counter(of: "sda1").get()
        try addPartitions(disk: 180, first: 20, second: 110)
        #expect(try counter(of: "sda1").get() == before)
        try addPartitions(disk: 181, first: 20, second: 110)
        #expect(try counter(of: "sda1").get() != before)
        try addPartitions(disk: 101, first: 21, second: 30)
        #expect(try counter(of: "sda1").get() != before)
        try addPartitions(disk: 100, first: 20, second: 30, start: 4096)
        #expect(try counter(of: "sda1").get() != before)
    }

    /// The kernel counts a request on the partition first, and a moment later on the disk.
    @Test func `requests to partitions are no writes through their disk at any moment`() throws {
        try addPartitions(disk: 100, first: 20, second: 30)
        let disk = try #require(SystemDevice(named: "sda", sys: scratch.path))
        var counts = try #require(DiskNodeCounts(of: disk))
        for (whole, second) in [(100, 38), (104, 38), (108, 38)] {
            try addPartitions(disk: whole, first: 20, second: second)
            counts.update()
            #expect(!counts.haveGrown && counts.sectors == [50, 0], "\(whole) \(second)")
        }
        try addPartitions(disk: 109, first: 20, second: 38)
        counts.update()
        #expect(counts.haveGrown && counts.sectors == [51, 0])
        try addPartitions(disk: 109, first: 20, second: 45)
        counts.update()
        #expect(counts.haveGrown && counts.sectors == [51, 0])
    }

    @Test func `a partition that is removed is no write through its disk`() throws {
        try addPartitions(disk: 100, first: 20, second: 30)
        let disk = try #require(SystemDevice(named: "sda", sys: scratch.path))
        var counts = try #require(DiskNodeCounts(of: disk))
        try must("rm", "-r", "\(disk.directory)/sda2")
        counts.update()
        #expect(!counts.haveGrown)
    }

    @Test func `a partition has a counter only where its disk has one`() throws {
        let array = ["md/level": "raid1", "diskseq": "4", "queue/iostats": "1"]
        try add("md127", "9:127", array)
        try add("md127p1", "259:0", in: "virtual/block/md127", ["partition": "1", "start": "1"])
        #expect(try reason(of: "md127p1") == "it is an md array")
        #expect(try reason(of: "md127") == "it is an md array")
    }

    @Test func `a loop device has a counter if its file has one`() throws {
        try addDisk("loop0", "7:0", ["loop/backing_file": "/images/a"])
        try add("loop0p1", "259:0", in: "pci0000:00/ata1/host0/block/loop0", ["partition": "1"])
        #expect(try reason(of: "loop0") == nil && reason(of: "loop0p1") == nil)
        #expect(try reason(of: "loop0", isBacked: false)?.contains("/images/a") == true)
        #expect(try reason(of: "loop0p1", isBacked: false) != nil)
    }

    // MARK: Logical volumes

    private func addLinear(slave: String = "sdb") throws {
        try addDisk("sdb", "8:16")
        try addMapped("dm-0", "253:0", uuid: "LVM-\(group)\(volume)", slaves: [slave])
    }

    @Test(arguments: [
        ("0 64 linear 8:16 2048", true), ("0 64 striped 2 128 8:16 0 8:16 64", true),
        ("0 64 mirror core 1 1024 2 8:16 0 8:16 64 0", true),
        ("0 64 raid raid1 3 0 region_size 1024 1 8:16 8:16", true),
        ("0 64 raid raid5_ls 3 128 region_size 1024 1 8:16 8:16", false),
        ("0 64 thin 8:16 1", true), ("0 64 thin 8:16 1 8:32", false),
        ("0 64 crypt aes-xts 0 0 8:16 0", false), ("0 64 cache 8:16 8:16 8:16 128 0", false),
        ("0 64 writecache s 8:16 8:16 4096 0", false), ("0 64 vdo V4 8:16", false),
        ("0 64 snapshot 8:16 8:16 P 8", false), ("0 64 snapshot-merge 8:16 8:16 P 8", false),
        ("0 64 integrity 8:16 0 4 J 0", false), ("0 64 error", false), ("0 64 zero", false),
        ("0 64 delay 8:16 0 50", false), ("0 64 multipath 0 0 1 1 8:16", false),
        ("0 32 linear 8:16 0\n32 32 error", false),
    ])
    func `a logical volume has a counter if all of its targets are on the list`(
        table: String, isCounted: Bool
    ) throws {
        try addLinear()
        #expect(try (reason(of: "dm-0", tables: ["dm-0": table]) == nil) == isCounted)
    }

    private static let linear = ["dm-0": "0 64 linear 8:16 2048"]

    @Test func `a volume's counter has its table, and the versions since it was allocated`() throws
    {
        try addLinear()
        let stamp = try counter(of: "dm-0", tables: Self.linear).get()
        #expect(stamp.since == 3 && stamp.marks.last == 5)
        #expect(stamp.equivalents.map(\.last) == [3, 4, 5])
        let other = try counter(of: "dm-0", tables: ["dm-0": "0 64 linear 8:16 2049"]).get()
        #expect(other != stamp)
        #expect(try reason(of: "dm-0", tables: Self.linear, versions: nil) != nil)
        #expect(try reason(of: "dm-0") != nil)
    }

    @Test func `a volume whose link in sysfs was made again has another counter`() throws {
        try addLinear()
        let before = try counter(of: "dm-0", tables: Self.linear).get()
        let link = scratch.file("devices/virtual/block/dm-0/slaves/sdb")
        // The old one stays, so that the file system cannot use its number again.
        try must("mv", link, scratch.file("old"))
        try must("ln", "-s", "..", link)
        #expect(try counter(of: "dm-0", tables: Self.linear).get() != before)
    }

    @Test func `the counter of an origin includes the device with its blocks`() throws {
        try addLinear()
        let uuid = "LVM-\(group)\(volume)"
        let tables = ["dm-0": "0 64 snapshot-origin 253:1", "dm-1": "0 64 linear 8:16 0"]
        #expect(try reason(of: "dm-0", tables: tables) != nil)
        try addMapped("dm-1", "253:1", uuid: "\(uuid)-real", slaves: ["sdb"])
        try addMapped("dm-0", "253:0", uuid: uuid, slaves: ["dm-1"])
        let before = try counter(of: "dm-0", tables: tables).get()
        try addMapped(
            "dm-1", "253:1", uuid: "\(uuid)-real", slaves: ["sdb"], ["stat": "8 0 1 1 9 0 73 3"])
        #expect(try counter(of: "dm-0", tables: tables).get() != before)
    }

    @Test func `a mapped device that is no logical volume, or a part of one, has no counter`()
        throws
    {
        try addLinear()
        for uuid in ["", "CRYPT-LUKS2-1", "mpath-1", "LVM-\(group)\(volume)-real", "LVM-\(group)"] {
            try addMapped("dm-0", "253:0", uuid: uuid, slaves: ["sdb"])
            #expect(try reason(of: "dm-0", tables: Self.linear) != nil, "\(uuid)")
        }
    }

    @Test func `a volume above a disk without a counter has no counter`() throws {
        try addLinear(slave: "nbd0")
        try addDisk("nbd0", "43:0")
        #expect(try reason(of: "dm-0", tables: Self.linear) != nil)
        // Above an array, or a disk that is encrypted, it has one.
        try add("md0", "9:0", slaves: ["sdb"], ["md/level": "raid0"])
        try addLinear(slave: "md0")
        #expect(try reason(of: "dm-0", tables: Self.linear) == nil)
        try addMapped("dm-5", "253:5", uuid: "CRYPT-LUKS2-1", slaves: ["sdb"])
        try addLinear(slave: "dm-5")
        #expect(try reason(of: "dm-0", tables: Self.linear) == nil)
        let other = String(repeating: "o", count: 32)
        try addMapped("dm-5", "253:5", uuid: "LVM-\(other)\(volume)", slaves: ["sdb"])
        #expect(try reason(of: "dm-0", tables: Self.linear)?.contains("another group") == true)
        try addMapped("dm-5", "253:5", uuid: "mpath-1", slaves: ["sdb"])
        #expect(try reason(of: "dm-0", tables: Self.linear) != nil)
    }
}

extension MapperTable {
    /// Lines as dmsetup(8) prints them.
    fileprivate init(lines: String) {
        let targets = lines.split(separator: "\n").map { line in
            let words = line.split(separator: " ", maxSplits: 3, omittingEmptySubsequences: false)
            return Target(
                type: String(words[2]), parameters: words.count > 3 ? String(words[3]) : "")
        }
        self.init(targets: targets, fingerprint: lines.hashValue)
    }
}
