// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import LinuxIO
internal import Synchronization

extension BlockSpecialFile {
    /// The kernel's counts and the disk's sequence number; for a partition also the counts of
    /// writes through its disk; how often a linear table was replaced; changes of the file behind a
    /// loop device.
    ///
    /// The counts restart when a disk is attached or a volume is activated again. The sequence
    /// number (Linux 5.15 and later) then changes.
    package func changeCounter() -> ChangeCounter? {
        guard let device = SystemDevice(number: number),
            let counts = DeviceCounts(device.directory)
        else { return nil }
        return ChangeCounter(
            counts.marks + sectorsThroughDisk() + [tableReplacements(), backingFileChanges()])
    }

    private func tableReplacements() -> Int {
        linearTable.withLock { table in
            if table == nil { table = LinearTable(of: number) } else { table?.update() }
            return table?.replacements ?? 0
        }
    }

    private func backingFileChanges() -> Int {
        guard let device = SystemDevice(number: number) else { return 0 }
        return backingFile.withLock { file in
            if file == nil {
                file = BackingFileChanges(of: descriptor, disk: device.disk ?? device)
            } else {
                file?.update()
            }
            return file?.count ?? 0
        }
    }

    /// Sectors written and discarded through the disk of a partition; empty for other devices.
    private func sectorsThroughDisk() -> [Int] {
        guard let disk = countedDisk else { return [] }
        return diskNode.withLock { counts in
            if counts == nil { counts = DiskNodeCounts(of: disk) } else { counts?.update() }
            return counts?.sectors ?? []
        }
    }

    package func persistentChangeCounter() -> ChangeCounter? {
        guard case .success(let counter) = changeCounter() else { return nil }
        return counter
    }

    package var reasonForNoCounter: String? {
        guard case .failure(let error) = changeCounter() else { return nil }
        return error.reason
    }

    /// A number that changes when a disk is attached or gets another medium; a partition has its
    /// disk's number.
    ///
    /// Source: Documentation/ABI/stable/sysfs-block, diskseq; Linux 5.15 and later.
    static func currentDiskSequence(_ number: UInt64) -> Int? {
        let device = SystemDevice(number: number)
        return (device?.disk ?? device)?.integer("diskseq")
    }

    private func changeCounter() -> Result<ChangeCounter, NoChangeCounter> {
        let reader = CounterReader(backing: { [self] path in
            LoopBacking(of: descriptor, path: path)
        })
        guard let device = SystemDevice(number: number) else {
            return .failure(NoChangeCounter("it is not in sysfs"))
        }
        // The kernel counts a buffered write at write-back, which may be much later while another
        // program keeps the device open.
        guard (try? writeBackCache()) != nil else {
            return .failure(NoChangeCounter("its page cache cannot be written back"))
        }
        do throws(NoChangeCounter) { return .success(try reader.counter(of: device)) } catch {
            return .failure(error)
        }
    }
}
