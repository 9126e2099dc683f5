// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CLinuxBlock
internal import Glibc
package import SystemPackage

/// The fields of stat(2) that blkferry uses.
package struct FileStatus: Hashable, Sendable {
    package enum Kind: Hashable, Sendable {
        case regular
        case blockDevice
        case directory
        case other
    }

    package var kind: Kind
    /// The number of the file system (`st_dev`).
    package var fileSystem: UInt64
    package var inode: UInt64
    /// The number of a device file (`st_rdev`); 0 for other files.
    package var device: UInt64
    package var links: Int
    /// Bytes; 0 for a block device.
    package var size: Int
    /// Bytes on the file system; `Int.max` if the number does not fit.
    package var allocated: Int
    /// The time of the last change of content in nanoseconds since 1970.
    ///
    /// It wraps around in 2262 and is good only for comparisons.
    package var modified: Int
    /// The time of change (ctime), like `modified`; no program can set it.
    package var changed: Int
    /// The birth time, like `modified`; `nil` if the file system has none.
    ///
    /// A file system may give the inode number of a removed file to the next file that is created.
    package var born: Int?

    /// - Parameters:
    ///   - status: from stat(2).
    ///   - born: from statx(2) of the same file.
    init(_ status: stat, born: Int?) {
        switch status.st_mode & S_IFMT {
        case S_IFREG: kind = .regular
        case S_IFBLK: kind = .blockDevice
        case S_IFDIR: kind = .directory
        default: kind = .other
        }
        fileSystem = UInt64(status.st_dev)
        inode = UInt64(status.st_ino)
        device = UInt64(status.st_rdev)
        links = Int(clamping: status.st_nlink)
        size = max(0, Int(status.st_size))
        // A FUSE file system may report any number.
        let (bytes, isTooMuch) = Int(status.st_blocks).multipliedReportingOverflow(by: 512)
        allocated = isTooMuch ? .max : max(0, bytes)
        modified = Self.nanoseconds(status.st_mtim)
        changed = Self.nanoseconds(status.st_ctim)
        self.born = born
    }

    /// The birth time of an open file, or of the file at a path.
    ///
    /// The corresponding C function is `statx`.
    static func birth(_ descriptor: Int32, _ path: String? = nil) -> Int? {
        var time: Int64 = 0
        return clb_get_birth_time(descriptor, path, &time) ? Int(time) : nil
    }

    /// Whether two statuses are of the same file, also if its size or times changed in between.
    package func isSameFile(as other: FileStatus) -> Bool {
        (fileSystem, inode, device) == (other.fileSystem, other.inode, other.device)
            && (born == nil || other.born == nil || born == other.born)
    }

    private static func nanoseconds(_ time: timespec) -> Int {
        Int(time.tv_sec) &* 1_000_000_000 &+ Int(time.tv_nsec)
    }

    /// Follows symbolic links.
    ///
    /// The corresponding C function is `stat`.
    package init(path: String) throws(Errno) {
        var answer = stat()
        _ = try retryingInterrupts { stat(path, &answer) }
        self.init(answer, born: Self.birth(-1, path))
    }

    /// Follows symbolic links.
    package init(path: KernelPath) throws(Errno) {
        let name = path.cString
        var answer = stat()
        _ = try retryingInterrupts { stat(name, &answer) }
        var time: Int64 = 0
        let isKnown = clb_get_birth_time(-1, name, &time)
        self.init(answer, born: isKnown ? Int(time) : nil)
    }

    /// The status of a descriptor that another part of the program may have closed; `nil` if it is
    /// closed.
    ///
    /// The corresponding C function is `fstat`.
    package init?(descriptor: Int32) {
        var answer = stat()
        guard fstat(descriptor, &answer) == 0 else { return nil }
        self.init(answer, born: Self.birth(descriptor))
    }

    /// Whether the file exists; `false` also if this user may not look it up.
    package static func exists(_ path: String) -> Bool { (try? FileStatus(path: path)) != nil }
}

/// The corresponding C function is `realpath`, which fails with ENOENT if a part is missing.
package func canonicalPath(_ path: String) throws(Errno) -> String {
    guard let answer = realpath(path, nil) else { throw currentErrno() }
    defer { free(answer) }
    return String(cString: answer)
}
