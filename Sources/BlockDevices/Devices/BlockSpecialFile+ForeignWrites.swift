// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import LinuxIO
internal import Synchronization

/// Detects writes by other processes during a run.
extension BlockSpecialFile {
    package func hasForeignWrites() -> Bool { file.hasForeignWrites() || hasForeignCounts() }

    package var reportsForeignWrites: Bool { file.isWatched }

    /// Also counts writes to the backing files below, by their time of change (ctime), and a
    /// replaced table.
    ///
    /// The kernel's counts do not contain the former. After the latter, what was written before may
    /// be elsewhere.
    package func hadOtherWriters() -> Bool {
        let hadWriters = file.hadOtherWriters { file.counterOfBackings() }
        return linearTable.withLock { $0?.takeReplacement() ?? false } || hadWriters
    }

    /// Sets the files behind all loop devices below, for the checks at the end of a run.
    package func setBackings(_ files: [BackingFile]) { file.setBackings(files) }

    /// Adds a check for `hadOtherWriters`: whether another program has a backing file below open for
    /// writing.
    package func checkForWriters(_ check: @escaping @Sendable () -> Bool) {
        file.checkForWriters(check)
    }

    /// Notices a table that another program has loaded, before this run changes the table.
    package func noteTable() { linearTable.withLock { table -> Void in table?.update() } }

    /// Takes the current table as the one that must stay, after this run has changed the table.
    package func acceptTable() { linearTable.withLock { table -> Void in table?.accept() } }

    /// Counts writes by other programs from now on.
    ///
    /// Each device has a page cache of its own. The kernel would count dirty pages of a partition
    /// only when it writes them back, over the replica.
    ///
    /// - Parameters:
    ///   - relatives: paths of the devices that cache the same bytes, such as the partitions of a
    ///     disk.
    ///   - dropping: whether their caches are emptied as well, because the device is about to be
    ///     written.
    package func startCounting(besides relatives: [String], dropping: Bool = false) {
        for relative in relatives { Self.writeBackCache(of: relative, dropping: dropping) }
        try? writeBackCache()
        countsBefore.withLock { $0 = sectorCounts() }
        let ofDiskNode = countedDisk.flatMap { DiskNodeCounts(of: $0) }
        diskNode.withLock { $0 = ofDiskNode }
        self.relatives.withLock { $0 = relatives }
        linearTable.withLock { table in
            if table == nil { table = LinearTable(of: number) }
        }
    }

    /// Whether the kernel counted more sectors than this process asked it to write, or writes to a
    /// partition's disk.
    ///
    /// The counts include discards, and writes through a partition, another node or a memory map.
    /// fanotify(7) reports none of these.
    private func hasForeignCounts() -> Bool {
        guard let before = countsBefore.withLock({ $0 }) else { return false }
        for relative in relatives.withLock({ $0 }) {
            Self.writeBackCache(of: relative, dropping: false)
        }
        try? writeBackCache()
        // The kernel counts this process's writes, buffered ones as well, on the partition.
        if hasWritesThroughDisk() { return true }
        guard !file.hasBufferedWrites.load(ordering: .relaxed) else { return false }
        // Read the counts first, because other threads add to the requests before the kernel
        // counts.
        guard let now = sectorCounts(), now.disk == before.disk,
            now.sectors.count == before.sectors.count
        else { return false }
        let requested = file.requested.load(ordering: .sequentiallyConsistent)
        let counted = zip(now.sectors, before.sectors).map { ($0 &- $1) &* 512 }
        // This process discards nothing on devices whose counts are compared.
        return counted[0] > requested || counted.dropFirst().contains { $0 > 0 }
    }

    private func hasWritesThroughDisk() -> Bool {
        diskNode.withLock { counts in
            counts?.update()
            return counts?.haveGrown ?? false
        }
    }

    /// The kernel's counts, if it counts every sector once; the device mapper may count restarted
    /// writes twice.
    func sectorCounts() -> DeviceCounts? {
        guard file.isDirect, thin == nil, let device = SystemDevice(number: number) else {
            return nil
        }
        return Self.countsOnce(device.disk ?? device) ? DeviceCounts(device.directory) : nil
    }

    /// The disk of a partition, if the kernel counts every sector of it once; `nil` for other
    /// devices.
    var countedDisk: SystemDevice? {
        guard let disk = SystemDevice(number: number)?.disk, Self.countsOnce(disk) else {
            return nil
        }
        return disk
    }

    private static func countsOnce(_ disk: SystemDevice) -> Bool {
        disk.attribute("loop/backing_file") != nil
            || (try? CounterReader { _ in nil }.requireDisk(disk)) != nil
    }
}
