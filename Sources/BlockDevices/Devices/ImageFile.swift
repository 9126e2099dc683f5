// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CLinuxBlock
internal import Glibc
package import LinuxIO
internal import Synchronization
package import SystemPackage

/// A disk image: a regular file that is used as a device.
package final class ImageFile: BlockDevice {
    package let name: String
    package var isDirect: Bool { file.isDirect }

    let file: DirectFile
    /// Whether the file system can tell holes from data that is only in the page cache.
    ///
    /// For files without extents, ext4 (seen with Linux 6.18) reports such data as a hole until
    /// write-back.
    private let knowsHoles: Bool
    private let size: Atomic<Int>
    private let ladder: ZeroMethods

    package init(path: String, name: String, access: Access) throws(IOError) {
        let file = try DirectFile(
            path: path, name: name, flags: access == .read ? O_RDONLY : O_RDWR)
        let status: FileStatus
        do throws(Errno) { status = try file.main.status() } catch {
            throw IOError(name, "open", error)
        }
        guard status.kind == .regular else {
            throw IOError(name, "open", reason: "not a regular file")
        }
        self.file = file
        self.name = name
        knowsHoles = !clb_is_mapped_by_blocks(file.main.rawValue)
        size = Atomic(status.size)
        ladder = ZeroMethods(
            [
                .init("punch hole") { range throws(Errno) in
                    _ = try retryingInterrupts {
                        clb_punch_hole(
                            file.main.rawValue, Int64(range.offset), Int64(range.length))
                    }
                },
                .init("zero range") { range throws(Errno) in
                    _ = try retryingInterrupts {
                        clb_zero_range(
                            file.main.rawValue, Int64(range.offset), Int64(range.length))
                    }
                },
            ], readsAsZeros: file.readsAsZeros)
    }

    package var geometry: Geometry {
        Geometry(
            size: size.load(ordering: .relaxed), logicalSector: 512, alignment: file.alignment)
    }

    package var isImage: Bool { true }
    package var fileStatus: FileStatus? { try? status() }

    /// The status; device and inode number identify the file.
    package func status() throws(IOError) -> FileStatus {
        do throws(Errno) { return try file.main.status() } catch {
            throw IOError(name, "get status", error)
        }
    }

    /// Locks the whole image.
    ///
    /// The corresponding C function is `fcntl` with `F_OFD_SETLK`.
    ///
    /// - Parameter exclusive: locks out readers as well as writers; needs write access.
    /// - Returns: `false` if another process holds a conflicting lock.
    /// - Throws: an error if the file system has no locks.
    package func lock(exclusive: Bool) throws(IOError) -> Bool {
        try file.lock(exclusive: exclusive)
    }

    /// Keeps objects, such as locks on loop devices, while the image is open.
    package func keep(_ companions: [any AnyObject & Sendable]) { file.keep(companions) }

    /// Makes reads after each flush come from the medium, even through buffered loop devices below.
    package func flushThrough(_ files: [BackingFile]) { file.flushThrough(files) }

    /// Sets the files behind all loop devices below, for the checks at the end of a run.
    package func setBackings(_ files: [BackingFile]) { file.setBackings(files) }

    /// Adds a check for `hasForeignWrites`: whether another program may have written.
    package func checkForOthers(_ check: @escaping @Sendable () -> Bool) {
        file.checkForOthers(check)
    }

    /// Adds a check for `hadOtherWriters`: whether another program has the image open for writing.
    package func checkForWriters(_ check: @escaping @Sendable () -> Bool) {
        file.checkForWriters(check)
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

    package var shortZeros: Int { WriteRun.shortZeros }

    package func zero(_ range: ByteRange) throws(IOError) {
        if try !ladder.zero(range, name: name) { try file.writeZeros(range) }
    }

    package func nextData(from offset: Int) throws(IOError) -> ByteRange? {
        let size = geometry.size
        guard offset < size else { return nil }
        guard knowsHoles else { return ByteRange(offset, to: size) }
        do throws(Errno) {
            let descriptor = file.main.rawValue
            let start = try retryingInterrupts { lseek(descriptor, off_t(offset), clb_SEEK_DATA) }
            let end = try retryingInterrupts { lseek(descriptor, start, clb_SEEK_HOLE) }
            return start < size ? ByteRange(Int(start), to: min(Int(end), size)) : nil
        } catch .noSuchAddressOrDevice {
            // There is no data from here to the end (lseek(2)), or the file was truncated.
            try checkSize()
            return nil
        } catch .invalidArgument {
            // The file system does not know its holes.
            return ByteRange(offset, to: size)
        } catch {
            throw IOError(name, "find data at offset \(offset)", error)
        }
    }

    package func resize(to newSize: Int) throws(IOError) {
        do throws(Errno) {
            _ = try retryingInterrupts { ftruncate(file.main.rawValue, off_t(newSize)) }
        } catch {
            throw IOError(name, "resize to \(newSize) bytes", error)
        }
        size.store(newSize, ordering: .relaxed)
    }

    package func flush() throws(IOError) { try file.synchronize() }

    private func checkSize() throws(IOError) {
        try file.checkSize(try status().size, geometry.size)
    }

    package func checkIdentity() throws(IOError) {
        try file.checkName()
        try file.checkBackings()
        try checkSize()
    }

    package func checkName(_ status: Result<FileStatus, Errno>) throws(IOError) {
        try file.checkName { () throws(Errno) in try status.get() }
    }

    package func hasForeignWrites() -> Bool { file.hasForeignWrites() }

    package func hadOtherWriters() -> Bool { file.hadOtherWriters { changeCounter() } }

    package var reportsForeignWrites: Bool { file.isWatched }

    /// The size and the time of change (ctime), which renaming or a new mode also changes.
    ///
    /// A program can set the time of modification back, but not the time of change.
    package func changeCounter() -> ChangeCounter? {
        guard let status = try? file.main.status() else { return nil }
        return ChangeCounter([status.size, status.changed])
    }

    /// The size and the time of change (ctime); `nil` outside `CountedFileSystem`, or if the file
    /// keeps changing.
    ///
    /// It may wait for two seconds.
    package func persistentChangeCounter() -> ChangeCounter? {
        settledStatus(of: file.main).map { ChangeCounter([$0.size, $0.changed]) }
    }

    package var reasonForNoCounter: String? {
        persistentChangeCounter() == nil ? "its file system does not record every write" : nil
    }
}

extension DirectFile {
    /// Whether both ends of a range are zeros on the medium.
    func readsAsZeros(_ range: ByteRange) throws(IOError) -> Bool {
        let length = min(range.length, ZeroMethods.ends)
        let buffer = AlignedBuffer(count: length)
        let bytes = UnsafeMutableRawBufferPointer(rebasing: buffer.bytes[..<length])
        for offset in [range.offset, range.end - length] where offset % alignment == 0 {
            try read(into: bytes, at: offset)
            if !isZero(UnsafeRawBufferPointer(bytes)) { return false }
        }
        return true
    }
}
