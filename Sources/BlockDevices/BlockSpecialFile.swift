// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CLinuxBlock
internal import Glibc
package import LinuxIO
internal import Synchronization
internal import SystemPackage

/// A block device of this machine: disk, partition, logical volume, loop device.
package final class BlockSpecialFile: BlockDevice {
    package let name: String
    /// The device's number (`st_rdev`).
    package let number: UInt64

    private let file: DirectFile
    private let ladder: ZeroingLadder
    private let thin: ThinChunks?
    private let size: Atomic<Int>
    private let units: (logicalSector: Int, alignment: Int)

    /// For ioctl(2).
    var descriptor: Int32 { file.main.rawValue }

    /// Opens a block device.
    ///
    /// - Parameters:
    ///   - path: the device file's path.
    ///   - name: what the user calls it.
    ///   - access: for reading alone; or for writing as well, and then claimed for this program
    ///     (`O_EXCL`) as long as it is open.
    ///   - thin: of a thin volume that is written to: its pool's chunks. Whole ones that become
    ///     zeros are given back to the pool.
    /// - Throws: what open(2) says, EBUSY when somebody has claimed it; when it is no block device
    ///   or has no medium.
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
        self.file = file
        self.name = name
        number = status.device
        self.thin = thin
        let alignment = max(file.alignment, Int(sector))
        // Chunks that the pool does not zero have to be written as a whole.
        let unit = thin.map { $0.areZeroed ? alignment : max(alignment, $0.size) } ?? alignment
        units = (Int(sector), unit)
        size = Atomic(try file.size(sector: Int(sector)))
        let methods: [ZeroingLadder.Method] =
            if thin != nil {
                [
                    // What of a thin volume is not there reads as zeros. But the kernel may cut
                    // discards elsewhere than at chunks, of which nothing happens to the halves.
                    .init("BLKDISCARD", isPromise: false) { range throws(Errno) in
                        _ = try retryingInterrupts {
                            clb_discard(descriptor, UInt64(range.offset), UInt64(range.length))
                        }
                    }
                ]
            } else {
                Self.zeroingMethods(descriptor)
            }
        ladder = ZeroingLadder(methods, readsAsZeros: file.readsAsZeros)
    }

    private static func zeroingMethods(_ descriptor: Int32) -> [ZeroingLadder.Method] {
        [
            // On a block device the kernel passes this on only to hardware that guarantees
            // zeros (blkdev_fallocate, BLKDEV_ZERO_NOFALLBACK).
            .init("punch hole") { range throws(Errno) in
                _ = try retryingInterrupts {
                    clb_punch_hole(descriptor, Int64(range.offset), Int64(range.length))
                }
            },
            .init("BLKZEROOUT") { range throws(Errno) in
                _ = try retryingInterrupts {
                    clb_zero_out(descriptor, UInt64(range.offset), UInt64(range.length))
                }
            },
        ]
    }

    /// Whether it was opened as a thin volume.
    package var isThin: Bool { thin != nil }

    package var geometry: Geometry {
        Geometry(
            size: size.load(ordering: .relaxed), logicalSector: units.logicalSector,
            alignment: units.alignment)
    }

    /// Asks the kernel for the size again, of a device that somebody has resized meanwhile.
    ///
    /// - Throws: what ioctl(2) says.
    package func readSize() throws(IOError) {
        size.store(try file.size(sector: units.logicalSector), ordering: .relaxed)
    }

    /// Locks the device file against others that lock, as virtual machine monitors do.
    ///
    /// O_EXCL keeps only those out that claim a device in the same way; a running virtual machine
    /// does not, but holds locks. The corresponding C function is `fcntl` with `F_OFD_SETLK`.
    ///
    /// - Returns: `false` when another process holds a lock.
    /// - Throws: where the device file cannot be locked at all.
    package func lock() throws(IOError) -> Bool { try file.lock(exclusive: true) }

    /// Whether the kernel refuses writes to the device (`BLKROGET`).
    ///
    /// - Throws: what ioctl(2) says.
    package func isReadOnly() throws(IOError) -> Bool {
        var answer: Int32 = 0
        do throws(Errno) {
            _ = try retryingInterrupts { clb_get_read_only(file.main.rawValue, &answer) }
        } catch {
            throw IOError(name, "ask whether it is read-only", error)
        }
        return answer != 0
    }

    package func read(into buffer: UnsafeMutableRawBufferPointer, at offset: Int) throws(IOError) {
        try file.read(into: buffer, at: offset)
    }

    package func write(_ buffer: UnsafeRawBufferPointer, at offset: Int) throws(IOError) {
        let range = ByteRange(offset: offset, length: buffer.count)
        let chunks = widened(range)
        guard chunks != range else { return try file.write(buffer, at: offset) }
        // Only the end of the source is so ragged: nobody else writes to its chunk.
        let memory = AlignedBuffer(count: chunks.length)
        let whole = UnsafeMutableRawBufferPointer(rebasing: memory.bytes[..<chunks.length])
        try file.read(into: whole, at: chunks.offset)
        UnsafeMutableRawBufferPointer(rebasing: whole[(offset - chunks.offset)...])
            .copyMemory(from: buffer)
        try file.write(UnsafeRawBufferPointer(whole), at: chunks.offset)
    }

    /// What has to be written for a range to be: whole chunks where the pool does not zero them.
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

    package func zero(_ range: ByteRange) throws(IOError) {
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
        // The ragged end of a source that is no multiple of the sector can only be written.
        let sector = geometry.logicalSector
        let whole = ByteRange(offset: range.offset, length: range.length / sector * sector)
        let isDone = try whole.isEmpty ? false : ladder.zero(whole, name: name)
        try file.writeZeros(isDone ? ByteRange(whole.end, to: range.end) : range)
    }

    package func flush() throws(IOError) {
        try file.synchronize()
        do throws(Errno) {
            _ = try retryingInterrupts { clb_flush_buffers(file.main.rawValue) }
        } catch .permissionDenied, .notPermitted {
            // Only the superuser may drop the cache. The data is on the medium all the same:
            // fdatasync(2) has just said so.
        } catch {
            throw IOError(name, "flush buffers", error)
        }
    }

    /// Has the kernel read the partition table that was just written.
    ///
    /// The corresponding C function is `ioctl` with `BLKRRPART`.
    ///
    /// - Returns: whether it did; a device without partitions refuses.
    package func rereadPartitions() -> Bool { clb_reread_partitions(file.main.rawValue) == 0 }

    /// Writes back what the kernel has cached of another device, one with bytes in common.
    ///
    /// The corresponding C functions are `fsync` and `ioctl` with `BLKFLSBUF`. Best effort: a device
    /// file that is missing or may not be opened is left out.
    ///
    /// - Parameters:
    ///   - path: the device file.
    ///   - dropping: also forget it, since it is about to be, or was, written underneath.
    package static func writeBackCache(of path: String, dropping: Bool) {
        guard let file = try? OwnedDescriptor.open(path, flags: O_RDONLY) else { return }
        try? file.synchronize()
        if dropping { _ = clb_flush_buffers(file.rawValue) }
    }

    /// Writes the page cache of the device back, so that reading it directly gives what it holds.
    ///
    /// The corresponding C function is `sync_file_range`. The device itself is not asked to flush,
    /// which one that fails may no longer be able to.
    ///
    /// - Throws: what sync_file_range(2) says.
    package func writeBackCache() throws(IOError) {
        do throws(Errno) {
            _ = try retryingInterrupts { clb_write_back(file.main.rawValue) }
        } catch {
            throw IOError(name, "write back its page cache", error)
        }
    }
}

extension DirectFile {
    /// The size of a block device in bytes, in whole sectors.
    fileprivate func size(sector: Int) throws(IOError) -> Int {
        var size: UInt64 = 0
        do throws(Errno) {
            _ = try retryingInterrupts { clb_get_size(main.rawValue, &size) }
        } catch {
            throw IOError(name, "get size", error)
        }
        // The kernel counts in units of 512 bytes; a part of a larger sector at the end can be
        // neither read nor written, so it is no part of the device.
        return Int(size) / sector * sector
    }
}
