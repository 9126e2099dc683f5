// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

/// The sectors that the kernel counts on a disk but on none of its partitions: those written
/// through the disk's own device file, or through a loop device on it.
///
/// The counts of the disk and of its partitions are read at different moments, and requests to the
/// partitions complete in between. The kernel adds a request first to the partition, then to the
/// disk (part_stat_add in include/linux/part_stat.h). So a difference whose partitions are read
/// first is too large, and one whose disk is read first is too small. Growth from the one to the
/// other is a write through the disk.
struct DiskNodeCounts {
    private let disk: SystemDevice
    private let first: Reading
    /// Sectors written and discarded; no less than the difference when this value was created.
    private let before: [Int]
    /// The same, and what programs have written through the disk since then.
    private(set) var sectors: [Int]

    private struct Reading {
        /// The disk's counts minus those of its partitions.
        let difference: [Int]
        /// The counts of each partition, by the kernel's name.
        let partitions: [String: [Int]]
        /// The disk's sequence number.
        let sequence: Int?
    }

    /// `nil` if the kernel counts nothing on the disk or on a partition.
    init?(of disk: SystemDevice) {
        guard var last = Self.read(disk, diskFirst: false) else { return nil }
        self.disk = disk
        first = last
        var sectors = last.difference
        for _ in 0..<Self.attempts {
            guard let now = Self.read(disk, diskFirst: false) else { return nil }
            guard now.difference.count == sectors.count else { return nil }
            sectors = Self.largest(sectors, now.difference)
            if now.difference == last.difference { break }
            last = now
        }
        before = sectors
        self.sectors = sectors
    }

    /// Whether a program wrote through the disk, as of the last update.
    var haveGrown: Bool { sectors != before }

    /// Reads the counts again.
    ///
    /// They stay the same once a partition was removed, because its own counts are then missing.
    mutating func update() {
        var last: Reading?
        for _ in 0..<Self.attempts {
            guard let now = Self.read(disk, diskFirst: true), isComparable(now) else { return }
            sectors = Self.largest(sectors, now.difference)
            if now.difference == last?.difference { return }
            last = now
        }
    }

    private func isComparable(_ now: Reading) -> Bool {
        now.sequence == first.sequence && now.difference.count == first.difference.count
            && first.partitions.allSatisfy { name, before in
                guard let counts = now.partitions[name] else { return false }
                return zip(counts, before).allSatisfy { $0 >= $1 }
            }
    }

    private static func read(_ disk: SystemDevice, diskFirst: Bool) -> Reading? {
        let early = DeviceCounts(disk.directory)
        var partitions: [String: [Int]] = [:]
        for partition in disk.partitions {
            guard let counts = DeviceCounts(partition.directory) else { return nil }
            partitions[partition.name] = counts.sectors
        }
        guard let whole = diskFirst ? early : DeviceCounts(disk.directory) else { return nil }
        var difference = whole.sectors
        for sectors in partitions.values {
            guard sectors.count == difference.count else { return nil }
            for index in sectors.indices { difference[index] &-= sectors[index] }
        }
        return Reading(difference: difference, partitions: partitions, sequence: whole.disk)
    }

    private static func largest(_ some: [Int], _ others: [Int]) -> [Int] {
        zip(some, others).map { max($0, $1) }
    }

    /// Maximum number of readings until two in a row agree.
    private static let attempts = 10
}
