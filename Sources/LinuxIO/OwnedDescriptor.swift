// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CLinuxBlock
internal import Glibc
package import SystemPackage

/// A file descriptor that has one owner and is closed with it.
package struct OwnedDescriptor: ~Copyable, Sendable {
    /// The descriptor, for calls that this type does not wrap; it is not to be closed.
    package let rawValue: Int32

    /// Takes over an open descriptor.
    ///
    /// - Parameter rawValue: an open descriptor that nobody else closes.
    package init(owning rawValue: Int32) { self.rawValue = rawValue }

    deinit {
        // Never retried: Linux has released the descriptor even when close(2) fails, and whatever
        // had to reach the medium was flushed before.
        let result = close(rawValue)
        precondition(result == 0 || currentErrno() != .badFileDescriptor, "closed twice")
    }

    /// Opens a file; the descriptor is not inherited by programs that this one starts.
    ///
    /// The corresponding C function is `open`.
    ///
    /// - Parameters:
    ///   - path: the file's path.
    ///   - flags: the `O_` flags, without `O_CLOEXEC`, which is always set.
    ///   - mode: permissions of a file that is created, before the umask.
    /// - Returns: the open descriptor.
    /// - Throws: the error that open(2) gives.
    package static func open(
        _ path: String, flags: Int32, mode: UInt32 = 0o600
    ) throws(Errno) -> OwnedDescriptor {
        OwnedDescriptor(
            owning: try retryingInterrupts { clb_open(path, flags | O_CLOEXEC, mode_t(mode)) })
    }

    /// Reads once, at most `buffer.count` bytes, at an offset in bytes.
    ///
    /// The corresponding C function is `pread`.
    ///
    /// - Returns: the number of bytes read; 0 at the end.
    /// - Throws: the error that pread(2) gives.
    package func readOnce(
        into buffer: UnsafeMutableRawBufferPointer, at offset: Int
    ) throws(Errno) -> Int {
        try retryingInterrupts { pread(rawValue, buffer.baseAddress, buffer.count, off_t(offset)) }
    }

    /// Writes once, at most `buffer.count` bytes, at an offset in bytes.
    ///
    /// The corresponding C function is `pwrite`.
    ///
    /// - Returns: the number of bytes written.
    /// - Throws: the error that pwrite(2) gives.
    package func writeOnce(
        _ buffer: UnsafeRawBufferPointer, at offset: Int
    ) throws(Errno) -> Int {
        try retryingInterrupts { pwrite(rawValue, buffer.baseAddress, buffer.count, off_t(offset)) }
    }

    /// Waits until the data, and what is needed to find it again, is on the medium.
    ///
    /// The corresponding C function is `fdatasync`.
    ///
    /// - Throws: the error that fdatasync(2) gives; what was written before may then be lost.
    package func synchronizeData() throws(Errno) {
        _ = try retryingInterrupts { fdatasync(rawValue) }
    }

    /// Waits until the file, a directory's names included, is on the medium.
    ///
    /// The corresponding C function is `fsync`.
    ///
    /// - Throws: the error that fsync(2) gives.
    package func synchronize() throws(Errno) {
        _ = try retryingInterrupts { fsync(rawValue) }
    }

    /// Tells the kernel that the pages of a range, in bytes, are not needed in its cache.
    ///
    /// Only clean pages go. The corresponding C function is `posix_fadvise` with
    /// `POSIX_FADV_DONTNEED`.
    ///
    /// - Parameters:
    ///   - offset: where the range starts.
    ///   - length: its length; 0 stands for up to the end.
    package func dropCachedPages(offset: Int = 0, length: Int = 0) {
        // Advice: there is nothing to do about a refusal.
        _ = posix_fadvise(rawValue, off_t(offset), off_t(length), POSIX_FADV_DONTNEED)
    }

    /// What the file is, where, how large.
    ///
    /// The corresponding C function is `fstat`.
    ///
    /// - Returns: the file's status.
    /// - Throws: the error that fstat(2) gives.
    package func status() throws(Errno) -> FileStatus {
        var answer = stat()
        _ = try retryingInterrupts { fstat(rawValue, &answer) }
        return FileStatus(answer)
    }
}
