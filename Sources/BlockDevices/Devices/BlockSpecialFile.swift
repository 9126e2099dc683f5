// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CLinuxBlock
internal import Glibc
package import LinuxIO
internal import Synchronization
internal import SystemPackage

/// A block device of this machine: disk, partition, logical volume or loop device.
package final class BlockSpecialFile: BlockDevice {
    package let name: String
    /// `st_rdev`.
    package let number: UInt64

    let file: DirectFile
    /// The kernel's counts when the device was locked for writing.
    let countsBefore = Mutex<DeviceCounts?>(nil)
    /// The counts of a partition's disk since the partition was locked for writing, or since its
    /// change counter was first read.
    let diskNode = Mutex<DiskNodeCounts?>(nil)
    /// The table since the device was locked for writing, or since its change counter was first
    /// read.
    let linearTable = Mutex<LinearTable?>(nil)
    /// Changes of a loop device's backing file since the change counter was first read.
    let backingFile = Mutex<BackingFileChanges?>(nil)
    /// Paths of the devices that cache the same bytes.
    let relatives = Mutex<[String]>([])
    private let ladder: ZeroMethods
    let thin: ThinChunks?
    /// Finds the next run of data; `nil` as long as the device knows no holes.
    let nextRun = Mutex<(@Sendable (Int) -> ByteRange?)?>(nil)
    private let size: Atomic<Int>
    /// The disk's sequence number when the device was opened; see `currentDiskSequence`.
    private let diskSequence: Int?
    /// The offset of a loop device when it was opened; see `loopOffset(_:)`.
    private let loopOffset: Int?
    /// The backing file of a loop device, from sysfs; the kernel appends " (deleted)" to the path
    /// of a file without a name.
    private let backingPath: String?
    private let units: (logicalSector: Int, alignment: Int)

    var descriptor: Int32 { file.main.rawValue }

    /// - Parameters:
    ///   - access: `readWrite` also claims the device for this program (`O_EXCL`) while it is open.
    ///   - thin: the chunks of a thin volume; the pool gets whole chunks of zeros back.
    /// - Throws: also EBUSY if another program has claimed the device, and an error if it is no
    ///   block device or has no medium.
    package init(
        path: String, name: String, access: Access, thin: ThinChunks? = nil
    ) throws(IOError) {
        let file = try DirectFile(
            path: path, name: name, flags: access == .read ? O_RDONLY : O_RDWR | O_EXCL)
        let descriptor = file.main.rawValue
        var sector: Int32 = 0
        let status: FileStatus
        do throws(Errno) {
            status = try file.main.status()
            _ = try retryingInterrupts { clb_get_logical_sector_size(descriptor, &sector) }
        } catch {
            throw IOError(name, "get size", error)
        }
        guard status.kind == .blockDevice else {
            throw IOError(name, "open", reason: "not a block device")
        }
        guard Geometry.isLogicalSector(Int(sector)) else {
            throw IOError(
                name, "open",
                reason: "its driver reports a logical sector of \(sector) bytes, "
                    + "which no device has")
        }
        self.file = file
        self.name = name
        number = status.device
        diskSequence = Self.currentDiskSequence(status.device)
        loopOffset = Self.loopOffset(status.device)
        backingPath = Self.backingPath(status.device)
        self.thin = thin
        let alignment = max(file.alignment, Int(sector))
        // Chunks that the pool does not zero must be written as a whole.
        let unit = thin.map { $0.areZeroed ? alignment : max(alignment, $0.size) } ?? alignment
        units = (Int(sector), unit)
        size = Atomic(try file.size(sector: Int(sector)))
        let methods: [ZeroMethods.Method] =
            if thin != nil {
                [
                    // Unmapped parts read as zeros. But the kernel may split discards within a
                    // chunk, and the pool ignores discards of partial chunks.
                    .init("BLKDISCARD", isPromise: false) { range throws(Errno) in
                        _ = try retryingInterrupts {
                            clb_discard(descriptor, UInt64(range.offset), UInt64(range.length))
                        }
                    }
                ]
            } else {
                Self.zeroingMethods(file)
            }
        ladder = ZeroMethods(methods, readsAsZeros: file.readsAsZeros)
    }

    private static func zeroingMethods(_ file: DirectFile) -> [ZeroMethods.Method] {
        let descriptor = file.main.rawValue
        return [
            // The kernel passes this only to hardware that guarantees zeros (blkdev_fallocate,
            // BLKDEV_ZERO_NOFALLBACK).
            .init("punch hole") { [file] range throws(Errno) in
                file.requested.add(range.length, ordering: .sequentiallyConsistent)
                _ = try retryingInterrupts {
                    clb_punch_hole(descriptor, Int64(range.offset), Int64(range.length))
                }
            },
            .init("BLKZEROOUT") { [file] range throws(Errno) in
                file.requested.add(range.length, ordering: .sequentiallyConsistent)
                _ = try retryingInterrupts {
                    clb_zero_out(descriptor, UInt64(range.offset), UInt64(range.length))
                }
            },
        ]
    }

    package var isThin: Bool { thin != nil }

    package var fileStatus: FileStatus? { try? file.main.status() }

    package var geometry: Geometry {
        Geometry(
            size: size.load(ordering: .relaxed), logicalSector: units.logicalSector,
            alignment: units.alignment)
    }

    /// Reads the size again after LVM resized the device for this run.
    package func readSize() throws(IOError) {
        size.store(try file.size(sector: units.logicalSector), ordering: .relaxed)
        acceptTable()
    }

    package func checkIdentity() throws(IOError) {
        try file.checkName()
        try file.checkBackings()
        let now = Self.currentDiskSequence(number)
        if let now, let diskSequence, now != diskSequence {
            throw file.failedCheck(
                "it is another disk now, or has another medium",
                advice: "It was replaced during the run. Run it again.")
        }
        let deleted = " (deleted)"
        if let backingPath, !backingPath.hasSuffix(deleted),
            Self.backingPath(number)?.hasSuffix(deleted) == true
        {
            throw file.failedCheck(
                "the file behind it has no name any more",
                advice: "\(backingPath) was removed or replaced during the run. Run it again.")
        }
        try file.checkSize(try file.size(sector: units.logicalSector), geometry.size)
        if let loopOffset, let now = Self.loopOffset(number), now != loopOffset {
            throw file.failedCheck(
                "it has other bytes now: its offset in the file behind it was changed from "
                    + "\(loopOffset) to \(now)",
                advice: "Another program moved the loop device during the run. Run it again.")
        }
    }

    private static func backingPath(_ number: UInt64) -> String? {
        SystemDevice(number: number).flatMap { ($0.disk ?? $0).attribute("loop/backing_file") }
    }

    /// Locks the device file, because a running virtual machine holds a lock but does not claim
    /// with O_EXCL.
    ///
    /// The corresponding C function is `fcntl` with `F_OFD_SETLK`.
    ///
    /// - Parameter exclusive: locks out readers as well as writers; needs write access.
    /// - Returns: `false` if another process holds a conflicting lock.
    package func lock(exclusive: Bool) throws(IOError) -> Bool {
        guard try file.lock(exclusive: exclusive) else { return false }
        if exclusive { startCounting(besides: []) }
        return true
    }

    /// Keeps objects, such as locks on partitions, while the device is open.
    package func keep(_ companions: [any AnyObject & Sendable]) { file.keep(companions) }

    /// Keeps an object, and releases it right after the device is closed.
    package func keepUntilClosed(_ object: any AnyObject & Sendable) {
        file.survivor.withLock { $0 = object }
    }

    /// Makes reads after each flush come from the medium, even through buffered loop devices below.
    package func flushThrough(_ files: [BackingFile]) { file.flushThrough(files) }

    /// Adds a check for `hasForeignWrites`: whether another program may have written.
    package func checkForOthers(_ check: @escaping @Sendable () -> Bool) {
        file.checkForOthers(check)
    }

    /// Whether the kernel refuses writes to the device (`BLKROGET`).
    package func isReadOnly() throws(IOError) -> Bool {
        var answer: Int32 = 0
        do throws(Errno) {
            _ = try retryingInterrupts { clb_get_read_only(file.main.rawValue, &answer) }
        } catch {
            throw IOError(name, "ask whether it is read-only", error)
        }
        return answer != 0
    }

    package func write(_ buffer: UnsafeRawBufferPointer, at offset: Int) throws(IOError) {
        let range = ByteRange(offset: offset, length: buffer.count)
        let chunks = widened(range)
        guard chunks != range else { return try file.write(buffer, at: offset) }
        // Only the end of the source can be unaligned, so no other worker writes to its chunk.
        let memory = AlignedBuffer(count: chunks.length)
        let whole = UnsafeMutableRawBufferPointer(rebasing: memory.bytes[..<chunks.length])
        try file.read(into: whole, at: chunks.offset)
        UnsafeMutableRawBufferPointer(rebasing: whole[(offset - chunks.offset)...])
            .copyMemory(from: buffer)
        try file.write(UnsafeRawBufferPointer(whole), at: chunks.offset)
    }

    /// The range that must be written: whole chunks if the pool does not zero them.
    private func widened(_ range: ByteRange) -> ByteRange {
        guard let thin, !thin.areZeroed, !range.isEmpty else { return range }
        return thin.widened(range, in: geometry.size)
    }

    package func attempt(_ transfers: [Transfer], _ direction: Transfer.Direction) -> [Bool] {
        let areWhole = transfers.allSatisfy { transfer in
            let range = ByteRange(offset: transfer.offset, length: transfer.memory.count)
            return direction == .read || widened(range) == range
        }
        return areWhole ? file.attempt(transfers, direction) : transfers.map { _ in false }
    }

    /// On a thin volume even short runs of zeros take no space.
    package var shortZeros: Int { thin == nil ? WriteRun.shortZeros : 0 }

    package func zero(_ range: ByteRange) throws(IOError) {
        guard range.length >= shortZeros else { return try file.writeZeros(range) }
        guard let thin else { return try zeroByLadder(range) }
        let whole = thin.whole(of: range)
        guard !whole.isEmpty, try ladder.zero(whole, name: name) else {
            return try writeZeros(range)
        }
        try writeZeros(ByteRange(range.offset, to: whole.offset))
        try writeZeros(ByteRange(whole.end, to: range.end))
    }

    private func writeZeros(_ range: ByteRange) throws(IOError) {
        guard widened(range) != range else { return try file.writeZeros(range) }
        let zeros = AlignedBuffer(count: range.length)
        try write(UnsafeRawBufferPointer(rebasing: zeros.bytes[..<range.length]), at: range.offset)
    }

    private func zeroByLadder(_ range: ByteRange) throws(IOError) {
        // The end of a source that is not a multiple of the sector can only be written.
        let sector = geometry.logicalSector
        let whole = ByteRange(offset: range.offset, length: range.length / sector * sector)
        let isDone = try whole.isEmpty ? false : ladder.zero(whole, name: name)
        try file.writeZeros(isDone ? ByteRange(whole.end, to: range.end) : range)
    }

    package func flush() throws(IOError) {
        try file.synchronize()
        do throws(Errno) {
            _ = try retryingInterrupts { PrivilegedCalls.flushBuffers(file.main.rawValue) }
        } catch .permissionDenied, .notPermitted {
            // Only the superuser may drop the cache, but fdatasync(2) has succeeded, so the data is
            // on the medium.
        } catch {
            throw IOError(name, "flush buffers", error, advice: DirectFile.adviceAfterFlush)
        }
    }

    /// Makes the kernel read the partition table again; `false` if the device has none or a
    /// partition is open.
    ///
    /// The corresponding C function is `ioctl` with `BLKRRPART`.
    package func rereadPartitions() -> Bool {
        // Locks on partitions keep them open.
        file.releaseCompanions()
        let descriptor = file.main.rawValue
        let isBusy = { ($0 as Errno) == .resourceBusy }
        do throws(Errno) {
            // udev opens new partitions for a moment.
            try waitingForHolders(isBusy) { () throws(Errno) in
                _ = try retryingInterrupts { PrivilegedCalls.rereadPartitions(descriptor) }
            }
            return true
        } catch {
            return false
        }
    }

    /// Writes back the page cache of a device with the same bytes, if its device file can be
    /// opened.
    ///
    /// The corresponding C functions are `fsync` and `ioctl` with `BLKFLSBUF`.
    ///
    /// - Parameter dropping: also drops the pages, because the bytes below them change or have
    ///   changed.
    package static func writeBackCache(of path: String, dropping: Bool) {
        guard let file = try? OwnedDescriptor.open(path, flags: O_RDONLY) else { return }
        try? file.synchronize()
        if dropping { _ = PrivilegedCalls.flushBuffers(file.rawValue) }
    }

    /// Writes the page cache back, so that direct reads return the current content.
    ///
    /// The corresponding C function is `sync_file_range`, which sends no flush request; a failing
    /// device may not be able to flush.
    package func writeBackCache() throws(IOError) {
        do throws(Errno) {
            _ = try retryingInterrupts { clb_write_back(file.main.rawValue) }
        } catch {
            throw IOError(name, "write back its page cache", error)
        }
    }
}

extension DirectFile {
    /// Bytes, rounded down to whole sectors.
    fileprivate func size(sector: Int) throws(IOError) -> Int {
        var size: UInt64 = 0
        do throws(Errno) {
            _ = try retryingInterrupts { clb_get_size(main.rawValue, &size) }
        } catch {
            throw IOError(name, "get size", error)
        }
        // The kernel counts in units of 512 bytes. A partial sector at the end can be neither read
        // nor written.
        return Int(clamping: size) / sector * sector
    }
}
