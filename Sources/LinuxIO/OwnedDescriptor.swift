// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CLinuxBlock
internal import Glibc
package import SystemPackage

/// A file descriptor that has one owner and is closed with it.
package struct OwnedDescriptor: ~Copyable, Sendable {
    /// The caller must not close it.
    package let rawValue: Int32

    /// Nothing else may close the descriptor.
    package init(owning rawValue: Int32) { self.rawValue = rawValue }

    deinit {
        // Never retried: Linux has released the descriptor even if close(2) fails. The data was
        // flushed before.
        let result = close(rawValue)
        precondition(result == 0 || currentErrno() != .badFileDescriptor, "closed twice")
    }

    /// The corresponding C function is `open`.
    ///
    /// - Parameters:
    ///   - flags: the `O_` flags; `O_CLOEXEC` is always added.
    ///   - mode: permissions of a new file, before the umask.
    package static func open(
        _ path: String, flags: Int32, mode: UInt32 = 0o600
    ) throws(Errno) -> OwnedDescriptor {
        OwnedDescriptor(
            owning: try retryingInterrupts { clb_open(path, flags | O_CLOEXEC, mode_t(mode)) })
    }

    /// Opens an existing file; `O_CLOEXEC` is always added.
    package static func open(
        _ path: KernelPath, flags: Int32
    ) throws(Errno) -> OwnedDescriptor {
        let name = path.cString
        return OwnedDescriptor(
            owning: try retryingInterrupts { clb_open(name, flags | O_CLOEXEC, 0) })
    }

    /// Opens in another process, so that this one can end while the kernel waits for the device.
    ///
    /// `O_CLOEXEC` is always added.
    package static func openElsewhere(
        _ path: String, flags: Int32
    ) throws(Errno) -> OwnedDescriptor {
        let descriptor = clb_open_elsewhere(path, flags)
        guard descriptor < 0 else { return OwnedDescriptor(owning: descriptor) }
        // The other process failed. Opening here succeeds or yields the reason.
        return try open(path, flags: flags)
    }

    /// Reads at most `buffer.count` bytes; 0 at the end of the file.
    ///
    /// The corresponding C function is `pread`.
    package func readOnce(
        into buffer: UnsafeMutableRawBufferPointer, at offset: Int
    ) throws(Errno) -> Int {
        try retryingInterrupts { pread(rawValue, buffer.baseAddress, buffer.count, off_t(offset)) }
    }

    /// Writes at most `buffer.count` bytes, and returns how many.
    ///
    /// The corresponding C function is `pwrite`.
    package func writeOnce(
        _ buffer: UnsafeRawBufferPointer, at offset: Int
    ) throws(Errno) -> Int {
        try retryingInterrupts { pwrite(rawValue, buffer.baseAddress, buffer.count, off_t(offset)) }
    }

    /// Reads until the buffer is full or the file ends, and returns how many bytes.
    package func read(
        into buffer: UnsafeMutableRawBufferPointer, at offset: Int
    ) throws(Errno) -> Int {
        var done = 0
        while done < buffer.count {
            let count = try readOnce(into: slice(buffer, done, buffer.count), at: offset + done)
            if count == 0 { break }
            done += count
        }
        return done
    }

    /// Writes the whole buffer; if it throws, any part may have been written.
    package func write(_ buffer: UnsafeRawBufferPointer, at offset: Int) throws(Errno) {
        var done = 0
        while done < buffer.count {
            done += try writeOnce(slice(buffer, done, buffer.count), at: offset + done)
        }
    }

    /// Waits until the data, and the metadata needed to read it, is on the medium.
    ///
    /// If it fails, data written before may be lost.
    ///
    /// The corresponding C function is `fdatasync`.
    package func synchronizeData() throws(Errno) {
        _ = try retryingInterrupts { fdatasync(rawValue) }
    }

    /// Waits until the file, or a directory's entries, are on the medium.
    ///
    /// The corresponding C function is `fsync`.
    package func synchronize() throws(Errno) {
        _ = try retryingInterrupts { fsync(rawValue) }
    }

    /// Drops clean pages of a range in bytes, where a length of 0 means up to the end.
    ///
    /// The corresponding C function is `posix_fadvise` with `POSIX_FADV_DONTNEED`.
    package func dropCachedPages(offset: Int = 0, length: Int = 0) {
        _ = posix_fadvise(rawValue, off_t(offset), off_t(length), POSIX_FADV_DONTNEED)
    }

    /// The corresponding C function is `fstat`.
    package func status() throws(Errno) -> FileStatus {
        var answer = stat()
        _ = try retryingInterrupts { fstat(rawValue, &answer) }
        return FileStatus(answer, born: FileStatus.birth(rawValue))
    }
}
