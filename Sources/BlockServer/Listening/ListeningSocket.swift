// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CLinuxBlock
internal import Glibc
package import LinuxIO
internal import NIOCore
internal import Synchronization
internal import SystemPackage

/// The listening socket of a server, bound before the server starts.
///
/// The process can so bind an address that only root may use, and drop its rights before the
/// server's threads start. Until then the kernel queues connections.
package final class ListeningSocket: Sendable {
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
}
