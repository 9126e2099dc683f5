// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CLinuxBlock
internal import Glibc
package import LinuxIO
internal import NIOCore
internal import Synchronization
internal import SystemPackage

/// A listening socket of a server, bound before the server starts.
///
/// The process can so bind an address that only root may use, and drop its rights before the
/// server's threads start. Until then the kernel queues connections.
package final class ListeningSocket: Sendable {
    package let address: BlockServer.Options.Address
    private let socket: Mutex<Int32>
    let file: UnixSocketFile?

    /// Connections that the kernel queues.
    private static let backlog: Int32 = 256

    /// - Parameters:
    ///   - address: of the server.
    ///   - isOpen: whether other users may connect to a unix socket.
    ///   - owner: of a unix socket's file; `nil` for the user of this process.
    /// - Throws: if the address cannot be bound.
    package init(
        _ address: BlockServer.Options.Address, isOpen: Bool, owner: (user: UInt32, group: UInt32)?
    ) throws(LinuxIO.IOError) {
        self.address = address
        do {
            switch address {
            case .host(let host, let port):
                socket = Mutex(try Self.bind(host, port))
                file = nil
            case .unix(let path):
                var bound: Int32 = -1
                file = try UnixSocketFile(path, isOpen: isOpen, owner: owner) {
                    bound = $0
                    try Self.listen($0)
                }
                socket = Mutex(bound)
            case .standardStreams: preconditionFailure("nothing listens")
            }
        } catch {
            throw IOError.network(
                "\(address)", "listen", reason: BlockServer.reason(error),
                advice: "--listen chooses another address or port.")
        }
    }

    /// Takes a socket that the service manager has bound, and whose file it removes.
    ///
    /// - Parameters:
    ///   - descriptor: this object closes it.
    ///   - name: of the socket, for messages.
    /// - Throws: unless it is a TCP or unix socket that listens.
    package init(passed descriptor: Int32, named name: String) throws(LinuxIO.IOError) {
        do throws(Errno) {
            // EBADF is no error of this program here.
            guard fcntl(descriptor, F_SETFD, FD_CLOEXEC) == 0 else { throw currentErrno() }
            guard try Self.canServe(descriptor) else { throw .protocolNotSupported }
            address = try Self.address(of: descriptor)
        } catch {
            throw IOError(
                name, "listen",
                reason: error == .protocolNotSupported
                    ? "it is not a TCP or unix socket that listens" : "\(error)",
                advice: "A .socket unit for blkferry has ListenStream= and no Accept=yes.")
        }
        socket = Mutex(descriptor)
        file = nil
    }

    deinit {
        let left = take()
        guard left >= 0 else { return }
        close(left)
        file?.remove()
    }

    /// Passes the socket to the caller, who must close it.
    func take() -> Int32 {
        socket.withLock { socket in
            defer { socket = -1 }
            return socket
        }
    }

    private static func bind(_ host: String, _ port: Int) throws -> Int32 {
        let address = try SocketAddress.makeAddressResolvingHost(host, port: port)
        let isIPv6 = address.protocol == .inet6
        let kind = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
        let socket = try retryingInterrupts {
            Glibc.socket(isIPv6 ? AF_INET6 : AF_INET, kind, 0)
        }
        set(socket, SOL_SOCKET, SO_REUSEADDR, 1)
        // [::] accepts IPv4 as well, also if the system's default differs.
        if isIPv6 { set(socket, Int32(IPPROTO_IPV6), IPV6_V6ONLY, 0) }
        do {
            try address.withSockAddr { pointer, length in
                _ = try retryingInterrupts { Glibc.bind(socket, pointer, socklen_t(length)) }
            }
            try listen(socket)
        } catch {
            close(socket)
            throw error
        }
        return socket
    }

    private static func set(_ socket: Int32, _ level: Int32, _ option: Int32, _ value: Int32) {
        var value = value
        _ = setsockopt(socket, level, option, &value, socklen_t(MemoryLayout<Int32>.size))
    }

    static func listen(_ socket: Int32) throws(Errno) {
        _ = try retryingInterrupts { Glibc.listen(socket, backlog) }
    }

    /// Whether a server can accept connections from a socket.
    private static func canServe(_ socket: Int32) throws(Errno) -> Bool {
        guard try option(socket, SO_TYPE) == Int32(SOCK_STREAM.rawValue),
            try option(socket, SO_ACCEPTCONN) == 1
        else { return false }
        let domain = try option(socket, SO_DOMAIN)
        if domain == AF_UNIX { return true }
        let transport = try option(socket, SO_PROTOCOL)
        return [AF_INET, AF_INET6].contains(domain) && transport == Int32(IPPROTO_TCP)
    }

    /// The corresponding C function is `getsockopt`.
    private static func option(_ socket: Int32, _ name: Int32) throws(Errno) -> Int32 {
        var value: Int32 = 0
        var length = socklen_t(MemoryLayout<Int32>.size)
        _ = try retryingInterrupts { getsockopt(socket, SOL_SOCKET, name, &value, &length) }
        return value
    }

    /// The corresponding C functions are `getsockname` and, for TCP, `getnameinfo`.
    private static func address(
        of socket: Int32
    ) throws(Errno) -> BlockServer.Options.Address {
        var storage = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        var host = [CChar](repeating: 0, count: Int(NI_MAXHOST))
        var port = [CChar](repeating: 0, count: Int(NI_MAXSERV))
        let result = withUnsafeMutablePointer(to: &storage) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { address -> Int32 in
                guard getsockname(socket, address, &length) == 0 else { return -1 }
                guard Int32(address.pointee.sa_family) != AF_UNIX else { return 0 }
                return getnameinfo(
                    address, length, &host, socklen_t(host.count), &port, socklen_t(port.count),
                    NI_NUMERICHOST | NI_NUMERICSERV)
            }
        }
        guard result == 0 else { throw result == -1 ? currentErrno() : .invalidArgument }
        guard Int32(storage.ss_family) == AF_UNIX else {
            return .host(text(host), port: Int(text(port)) ?? 0)
        }
        let path = withUnsafeBytes(of: storage) {
            $0.dropFirst(MemoryLayout<sa_family_t>.size)
                .prefix(Int(length) - MemoryLayout<sa_family_t>.size)
                .map { CChar(bitPattern: $0) }
        }
        // An abstract name begins with a zero byte (unix(7)).
        return .unix(path.first == 0 ? "@" + text(path.dropFirst()) : text(path))
    }

    private static func text(_ bytes: some Sequence<CChar>) -> String {
        String(decoding: bytes.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
    }
}
