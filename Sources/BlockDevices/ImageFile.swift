// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CLinuxBlock
internal import Glibc
package import LinuxIO
internal import Synchronization
internal import SystemPackage

/// A disk image: a regular file that is used as a device.
package final class ImageFile: BlockDevice {
    package let name: String
    /// Whether transfers bypass the page cache; some file systems cannot.
    package var isDirect: Bool { file.isDirect }

    private let file: DirectFile
    private let size: Atomic<Int>
    private let ladder: ZeroingLadder

    /// Opens an image that exists.
    ///
    /// - Parameters:
    ///   - path: the file's path.
    ///   - name: what the user calls it.
    ///   - access: for reading alone, or for writing as well.
    /// - Throws: what open(2) says, and when it is not a regular file.
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
        size = Atomic(status.size)
        ladder = ZeroingLadder(
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

    /// Device and inode number: what tells one file from another, whatever its path.
    ///
    /// - Throws: what fstat(2) says.
    package func status() throws(IOError) -> FileStatus {
        do throws(Errno) { return try file.main.status() } catch {
            throw IOError(name, "get status", error)
        }
    }

    /// Locks the whole image, for as long as it is open, against others that lock.
    ///
    /// The corresponding C function is `fcntl` with `F_OFD_SETLK`.
    ///
    /// - Parameter exclusive: against readers as well as writers; needs write access.
    /// - Returns: `false` when another process holds a lock that does not go together with it.
    /// - Throws: where the file system has no locks.
    package func lock(exclusive: Bool) throws(IOError) -> Bool {
        try file.lock(exclusive: exclusive)
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
        if try !ladder.zero(range, name: name) { try file.writeZeros(range) }
    }

    package func nextData(from offset: Int) throws(IOError) -> ByteRange? {
        let size = geometry.size
        guard offset < size else { return nil }
        do throws(Errno) {
            let descriptor = file.main.rawValue
            let start = try retryingInterrupts { lseek(descriptor, off_t(offset), clb_SEEK_DATA) }
            let end = try retryingInterrupts { lseek(descriptor, start, clb_SEEK_HOLE) }
            return start < size ? ByteRange(Int(start), to: min(Int(end), size)) : nil
        } catch .noSuchAddressOrDevice {
            // lseek(2): no data from here to the end. Or no file here any more.
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

    package func checkSize() throws(IOError) {
        let (now, before) = (try status().size, geometry.size)
        guard now != before else { return }
        throw IOError(
            name, "read", reason: "its size has changed from \(before) to \(now) bytes meanwhile")
    }

    package func contentStamp() -> ContentStamp? {
        guard let status = try? file.main.status() else { return nil }
        return ContentStamp([status.size, status.modified])
    }

    /// The size and the time of change, which unlike that of modification nobody can set back.
    ///
    /// It may wait for two seconds; `nil` where the file goes on to change.
    package func lastingStamp() -> ContentStamp? {
        settled { try? file.main.status() }.map { ContentStamp([$0.size, $0.changed]) }
    }
}

extension DirectFile {
    /// Whether the medium returns zeros for a range.
    ///
    /// A sample of it: both ends.
    func readsAsZeros(_ range: ByteRange) throws(IOError) -> Bool {
        let length = min(range.length, ZeroingLadder.ends)
        let buffer = AlignedBuffer(count: length)
        let bytes = UnsafeMutableRawBufferPointer(rebasing: buffer.bytes[..<length])
        for offset in [range.offset, range.end - length] where offset % alignment == 0 {
            try read(into: bytes, at: offset)
            if !isZero(UnsafeRawBufferPointer(bytes)) { return false }
        }
        return true
    }
}
