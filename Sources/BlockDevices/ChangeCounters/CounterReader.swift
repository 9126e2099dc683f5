// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import LinuxIO

/// Reads the persistent change counter of a block device; tests replace sysfs and the kernel's
/// answers.
struct CounterReader {
    var sys = "/sys"
    var table: (_ number: UInt64) -> MapperTable? = { DeviceMapper().table(of: $0) }
    /// The state of a loop device's backing file, by the path from sysfs.
    var backing: (_ path: String) -> LoopBacking?
    /// The versions of the group's metadata in which a volume has had its current extents.
    var versions: (_ volume: VolumeUUID, _ disks: [SystemDevice]) -> ClosedRange<Int>? = {
        VolumeHistory.versions(of: $0, on: $1)
    }

    func counter(of device: SystemDevice) throws(NoChangeCounter) -> ChangeCounter {
        let disk = device.disk ?? device
        if let path = disk.attribute("loop/backing_file") {
            return try loopCounter(of: device, on: path)
        }
        if disk.attribute("dm/name") != nil { return try volumeCounter(of: device) }
        try requireDisk(disk)
        guard device.disk != nil else { return ChangeCounter(try counts(of: device).marks) }
        return try partitionCounter(of: device, on: disk)
    }

    func counts(of device: SystemDevice) throws(NoChangeCounter) -> DeviceCounts {
        guard let counts = DeviceCounts(device.directory) else {
            throw NoChangeCounter("the kernel counts nothing on it (queue/iostats is 0)")
        }
        guard counts.disk != nil else {
            throw NoChangeCounter("the kernel does not number disks (Linux 5.15 and later do)")
        }
        return counts
    }

    // MARK: Disks

    /// Throws if other machines can write to a disk, or if its driver takes no requests.
    func requireDisk(_ disk: SystemDevice) throws(NoChangeCounter) {
        if disk.attribute("md/level") != nil || disk.name.hasPrefix("md") {
            throw NoChangeCounter("it is an md array")
        }
        guard let driver = CountedKind.diskDrivers.first(where: { isName(disk.name, of: $0) }),
            !disk.names(in: "mq").isEmpty
        else { throw NoChangeCounter("it is of a kind whose writes are not known to be counted") }
        let parts = disk.directory.split(separator: "/")
        let remote = ["session", "rport-", "vport-", "nvme-fabrics", "nvme-subsystem"]
        guard !parts.contains(where: { part in remote.contains { part.hasPrefix($0) } }),
            driver != "nvme" || disk.attribute("device/transport") == "pcie"
        else { throw NoChangeCounter("other machines may write to it") }
        guard ["none", nil].contains(disk.attribute("queue/zoned")) else {
            throw NoChangeCounter("it is a zoned disk")
        }
    }

    /// Whether a disk name belongs to a driver, such as `sdb` or `nvme0n1`.
    private func isName(_ name: String, of driver: String) -> Bool {
        guard name.hasPrefix(driver) else { return false }
        let rest = name.dropFirst(driver.count)
        switch driver {
        case "nvme":
            let numbers = rest.split(separator: "n", omittingEmptySubsequences: false)
            return numbers.count == 2 && numbers.allSatisfy { Int($0) != nil }
        default: return !rest.isEmpty && rest.allSatisfy { ("a"..."z").contains($0) }
        }
    }

    /// The counts of a partition, and those of its disk minus all partitions, twice because of
    /// writes in between.
    ///
    /// The difference shows writes through the disk's device file. It only grows, even if
    /// partitions are removed and created.
    private func partitionCounter(
        of partition: SystemDevice, on disk: SystemDevice
    ) throws(NoChangeCounter) -> ChangeCounter {
        guard let start = partition.integer("start"), let size = partition.integer("size") else {
            throw NoChangeCounter("sysfs does not show where it is on its disk")
        }
        func look() throws(NoChangeCounter) -> [Int] {
            var beside = try counts(of: disk).sectors
            for other in disk.partitions {
                let sectors = try counts(of: other).sectors
                guard sectors.count == beside.count else { continue }
                for index in sectors.indices { beside[index] -= sectors[index] }
            }
            return try counts(of: partition).marks + beside + [start, size]
        }
        var last = try look()
        for _ in 0..<Self.attempts {
            let now = try look()
            if now == last { return ChangeCounter(now) }
            last = now
        }
        throw NoChangeCounter("its disk is written all the time")
    }

    /// Maximum number of readings until two in a row agree.
    private static let attempts = 20

    // MARK: Loop devices

    private func loopCounter(
        of device: SystemDevice, on path: String
    ) throws(NoChangeCounter) -> ChangeCounter {
        guard let backing = backing(path) else {
            throw NoChangeCounter("the time of change of its backing file, \(path), proves nothing")
        }
        var marks = try counts(of: device).marks + backing.marks
        if device.disk != nil {
            // A partition may be created again elsewhere.
            marks += [device.integer("start") ?? -1, device.integer("size") ?? -1]
        }
        return ChangeCounter(marks)
    }
}
