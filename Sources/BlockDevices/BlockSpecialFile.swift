// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CLinuxBlock
internal import Glibc
package import LinuxIO
internal import SystemPackage

/// A block device of this machine: disk, partition, logical volume, loop device.
package final class BlockSpecialFile: BlockDevice {
    package let name: String
    package let geometry: Geometry
    /// The device's number (`st_rdev`).
    package let number: UInt64

    private let file: DirectFile
    private let ladder: ZeroingLadder

    /// Opens a block device.
    ///
    /// - Parameters:
    ///   - path: the device file's path.
    ///   - name: what the user calls it.
    ///   - access: for reading alone; or for writing as well, and then claimed for this program
    ///     (`O_EXCL`) as long as it is open.
    /// - Throws: what open(2) says, EBUSY when somebody has claimed it; when it is no block device
    ///   or has no medium.
    package init(path: String, name: String, access: Access) throws(IOError) {
        let file = try DirectFile(
            path: path, name: name, flags: access == .read ? O_RDONLY : O_RDWR | O_EXCL)
        let descriptor = file.main.rawValue
        var size: UInt64 = 0
        var sector: Int32 = 0
        let status: FileStatus
        do throws(Errno) {
            status = try file.main.status()
            _ = try retryingInterrupts { clb_get_size(descriptor, &size) }
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
        let alignment = max(file.alignment, Int(sector))
        // The kernel counts in units of 512 bytes; a part of a larger sector at the end can be
        // neither read nor written, so it is no part of the device.
        geometry = Geometry(
            size: Int(size) / Int(sector) * Int(sector), logicalSector: Int(sector),
            alignment: alignment)
        ladder = ZeroingLadder(
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
            ], readsAsZeros: file.readsAsZeros)
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
        try file.write(buffer, at: offset)
    }

    package func attempt(_ transfers: [Transfer], _ direction: Transfer.Direction) -> [Bool] {
        file.attempt(transfers, direction)
    }

    package func zero(_ range: ByteRange) throws(IOError) {
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

    /// Writes the page cache of the device back, so that reading it directly writes nothing.
    ///
    /// - Throws: what fdatasync(2) says.
    package func writeBackCache() throws(IOError) { try file.synchronize() }

    /// Writes and discards that the kernel has counted on the device.
    ///
    /// Source: Documentation/block/stat.rst; field 7 is sectors written, 14 sectors discarded. The
    /// number of writes also grows with flushes, which whoever opens the device to read may cause.
    package func contentStamp() -> ContentStamp? {
        let path = "/sys/dev/block/\(clb_major(number)):\(clb_minor(number))/stat"
        guard let text = readSmallFile(path) else { return nil }
        let fields = text.split(whereSeparator: \.isWhitespace).compactMap { Int($0) }
        guard fields.count >= 7 else { return nil }
        return ContentStamp([6, 13].filter { $0 < fields.count }.map { fields[$0] })
    }
}
