// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CLinuxBlock
internal import Glibc
internal import LinuxIO
internal import SystemPackage

/// The file at a path of the configuration, reached without symbolic links of other users.
///
/// Example: a server that runs as root exports `/home/bob/disk.img`. If it followed every symbolic
/// link, bob could make it export any file or disk. So a link is followed only if it and its
/// directory belong to root or to the server's user. The result is a descriptor: bob may still
/// replace his directories, but the descriptor keeps the file that was found.
struct TrustedPath: ~Copyable {
    enum Failure: Error {
        case system(Errno)
        /// The path of a symbolic link that another user may change.
        case link(String)
    }

    /// Opened with O_PATH.
    let file: OwnedDescriptor
    /// Whether no other user can make the path lead elsewhere.
    let isTrusted: Bool

    /// Limit of followed links, the same as the kernel's (path_resolution(7)).
    private static let mostLinks = 40

    init(_ path: String) throws(Failure) {
        var current = try Self.call { () throws(Errno) in
            try OwnedDescriptor.open("/", flags: clb_O_PATH | O_DIRECTORY)
        }
        var names = Self.names(in: path)
        var walked = ""
        var links = 0
        var isTrusted = true
        while let name = names.popLast() {
            let directory = current.rawValue
            let isOurs = try Self.isOurs(directory)
            if !isOurs { isTrusted = false }
            let next = try Self.call { () throws(Errno) in
                OwnedDescriptor(
                    owning: try retryingInterrupts {
                        openat(directory, name, clb_O_PATH | O_NOFOLLOW | O_CLOEXEC)
                    })
            }
            guard try Self.status(next.rawValue).st_mode & S_IFMT == S_IFLNK else {
                current = next
                walked += "/\(name)"
                continue
            }
            links += 1
            guard links <= Self.mostLinks else { throw .system(.tooManySymbolicLinkLevels) }
            guard isOurs, try Self.isOurs(next.rawValue) else { throw .link("\(walked)/\(name)") }
            let target = try Self.target(of: next.rawValue)
            names += Self.names(in: target)
            guard target.begins(with: "/") else { continue }
            current = try Self.call { () throws(Errno) in
                try OwnedDescriptor.open("/", flags: clb_O_PATH | O_DIRECTORY)
            }
            walked = ""
        }
        file = current
        self.isTrusted = isTrusted
    }

    consuming func take() -> OwnedDescriptor { file }

    /// The `st_rdev` of a block device; `nil` for another file, or if another user can make the
    /// path lead elsewhere.
    static func deviceNumber(at path: String) -> UInt64? {
        guard let place = try? TrustedPath(path), place.isTrusted,
            let status = try? place.file.status(), status.kind == .blockDevice
        else { return nil }
        return status.device
    }

    /// The symbolic link in a path that the server does not follow; `nil` for none.
    static func untrustedLink(in path: String) -> String? {
        do throws(Failure) {
            _ = try TrustedPath(path)
            return nil
        } catch {
            if case .link(let link) = error { return link }
            return nil
        }
    }

    private static func names(in path: String) -> [String] {
        path.unicodeScalars.split(separator: "/").map { String($0) }.filter { $0 != "." }.reversed()
    }

    /// Whether a file belongs to root or this process's user, and no other user can change it.
    ///
    /// In a sticky directory that all users or a group may write, such as /tmp, other users can
    /// only change their own files. The primary group of a user other than root counts as that
    /// user's own.
    private static func isOurs(_ file: Int32) throws(Failure) -> Bool {
        let status = try status(file)
        guard status.st_uid == 0 || status.st_uid == geteuid() else { return false }
        guard status.st_mode & S_IFMT == S_IFDIR, status.st_mode & S_ISVTX == 0 else { return true }
        if status.st_mode & S_IWOTH != 0 { return false }
        let isOwnGroup =
            status.st_gid == 0 || status.st_uid != 0 && status.st_gid == getegid()
        return status.st_mode & S_IWGRP == 0 || isOwnGroup
    }

    private static func status(_ file: Int32) throws(Failure) -> stat {
        var status = stat()
        _ = try call { () throws(Errno) in try retryingInterrupts { fstat(file, &status) } }
        return status
    }

    private static func target(of link: Int32) throws(Failure) -> String {
        var bytes = [CChar](repeating: 0, count: Int(PATH_MAX))
        let size = bytes.count
        let count = try call { () throws(Errno) in
            try retryingInterrupts { readlinkat(link, "", &bytes, size) }
        }
        guard
            let text = String(
                validating: bytes[..<count].map(UInt8.init(bitPattern:)), as: UTF8.self),
            !text.isEmpty
        else {
            throw .system(.noSuchFileOrDirectory)
        }
        return text
    }

    private static func call<Value: ~Copyable>(
        _ body: () throws(Errno) -> Value
    ) throws(Failure) -> Value {
        do throws(Errno) { return try body() } catch { throw .system(error) }
    }
}
