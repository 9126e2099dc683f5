// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
package import SystemPackage

/// What stat(2) says of a file, in this project's words.
package struct FileStatus: Hashable, Sendable {
    /// The kinds of file that matter to a tool for devices.
    package enum Kind: Hashable, Sendable {
        case regular
        case blockDevice
        case directory
        case other
    }

    package var kind: Kind
    /// Device number of the file system that the file is in (`st_dev`).
    package var fileSystem: UInt64
    /// Inode number, unique within the file system.
    package var inode: UInt64
    /// Device number that a device file stands for (`st_rdev`); 0 for other files.
    package var device: UInt64
    /// Bytes; 0 for a block device.
    package var size: Int
    /// Bytes that the file occupies on its file system.
    package var allocated: Int
    /// Time of the last change of content, nanoseconds since 1970; it wraps around in 2262 and is
    /// only good to be compared.
    package var modified: Int
    /// Time of the last change of content or of the inode, as `modified`; nobody can set it.
    package var changed: Int

    init(_ status: stat) {
        switch status.st_mode & S_IFMT {
        case S_IFREG: kind = .regular
        case S_IFBLK: kind = .blockDevice
        case S_IFDIR: kind = .directory
        default: kind = .other
        }
        fileSystem = UInt64(status.st_dev)
        inode = UInt64(status.st_ino)
        device = UInt64(status.st_rdev)
        size = Int(status.st_size)
        allocated = Int(status.st_blocks) * 512
        modified = Self.nanoseconds(status.st_mtim)
        changed = Self.nanoseconds(status.st_ctim)
    }

    private static func nanoseconds(_ time: timespec) -> Int {
        Int(time.tv_sec) &* 1_000_000_000 &+ Int(time.tv_nsec)
    }

    /// Looks a path up, following symbolic links.
    ///
    /// The corresponding C function is `stat`.
    ///
    /// - Parameter path: the file's path.
    /// - Throws: the error that stat(2) gives.
    package init(path: String) throws(Errno) {
        var answer = stat()
        _ = try retryingInterrupts { stat(path, &answer) }
        self.init(answer)
    }

    /// Whether there is such a file, as far as this user can tell.
    package static func exists(_ path: String) -> Bool { (try? FileStatus(path: path)) != nil }
}
