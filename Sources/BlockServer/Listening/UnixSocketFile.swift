// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CLinuxBlock
internal import DeviceProbe
internal import Glibc
internal import LinuxIO
internal import SystemPackage

/// The file of a unix socket that a server listens on.
///
/// bind(2) refuses an existing file, and a killed server leaves its file behind. So the server
/// removes the file before, if no server listens on it, and at its end, if it is still its own. A
/// lock on the directory (flock(2)) keeps a second server from checking while the first one binds.
struct UnixSocketFile: Sendable {
    private let path: String
    private let identity: FileIdentity

    /// Timeout for the directory's lock, which other servers hold for milliseconds.
    private static let patience = Duration.seconds(5)

    /// - Parameters:
    ///   - isOpen: whether other users may connect; connect(2) needs write permission for the file.
    ///   - owner: of the file; `nil` for the user of this process.
    ///   - listen: listens on the bound socket, and owns it.
    /// - Throws: EADDRINUSE if a server may listen there; the errors of `listen`.
    init(
        _ path: String, isOpen: Bool = false, owner: (user: UInt32, group: UInt32)? = nil,
        listen: (_ socket: Int32) throws -> Void
    ) throws {
        let lock = try Self.lockDirectory(of: path)
        try Self.removeAbandoned(path)
        // NIO would remove the file of a socket that it has bound, even if it belongs to another
        // server by then.
        let socket = try retryingInterrupts { clb_unix_socket() }
        do throws(Errno) { _ = try retryingInterrupts { clb_bind_unix(socket, path) } } catch {
            close(socket)
            throw error
        }
        if let owner { lchown(path, owner.user, owner.group) }
        chmod(path, isOpen ? 0o666 : 0o600)
        do { try listen(socket) } catch {
            close(socket)
            throw error
        }
        guard let identity = Self.identity(of: path) else { throw Errno.noSuchFileOrDirectory }
        self.path = path
        self.identity = identity
        _ = consume lock
    }

    func remove() {
        // Without the lock the file may belong to another server; the next server removes it then.
        guard let lock = try? Self.lockDirectory(of: path) else { return }
        if Self.identity(of: path) == identity { unlink(path) }
        _ = consume lock
    }

    private static func lockDirectory(of path: String) throws(Errno) -> OwnedDescriptor {
        let slash = path.utf8.lastIndex(of: UInt8(ascii: "/"))
        let name = slash.map { $0 == path.startIndex ? "/" : String(path[..<$0]) } ?? "."
        let directory = try OwnedDescriptor.open(name, flags: O_RDONLY | O_DIRECTORY)
        let end = ContinuousClock.now + patience
        while flock(directory.rawValue, LOCK_EX | LOCK_NB) != 0 {
            guard [.wouldBlock, .interrupted].contains(currentErrno()), ContinuousClock.now < end
            else { throw currentErrno() }
            pause(for: .milliseconds(10))
        }
        return directory
    }

    /// Removes a socket that no server listens on.
    private static func removeAbandoned(_ path: String) throws(Errno) {
        var status = stat()
        guard lstat(path, &status) == 0 else { return }
        guard status.st_mode & S_IFMT == S_IFSOCK else { throw .addressInUse }
        let socket = OwnedDescriptor(owning: try retryingInterrupts { clb_unix_socket() })
        let descriptor = socket.rawValue
        // Does not wait for a server that is too busy to accept.
        _ = try retryingInterrupts { fcntl(descriptor, F_SETFL, O_NONBLOCK) }
        do throws(Errno) {
            _ = try retryingInterrupts { clb_connect_unix(descriptor, path) }
        } catch .connectionRefused {
            _ = try retryingInterrupts { unlink(path) }
            return
        } catch .noSuchFileOrDirectory {
            return
        }
        // After any other result of connect(2) a server may listen there.
        throw .addressInUse
    }

    private static func identity(of path: String) -> FileIdentity? {
        var status = stat()
        guard lstat(path, &status) == 0, status.st_mode & S_IFMT == S_IFSOCK else { return nil }
        return FileIdentity(fileSystem: UInt64(status.st_dev), inode: UInt64(status.st_ino))
    }
}
