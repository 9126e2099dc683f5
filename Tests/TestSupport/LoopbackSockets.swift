// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CTestSupport
internal import Glibc
package import LinuxIO
package import SystemPackage

/// TCP sockets on 127.0.0.1, none of them inherited by programs that a test starts.
package enum Loopback {
    /// Listens on a port that the kernel chooses.
    ///
    /// - Parameter backlog: of listen(2); `nil` for the most.
    /// - Returns: the listening socket; `port(of:)` tells its port.
    /// - Throws: what socket(2), bind(2) and listen(2) say.
    package static func listen(backlog: Int32? = nil) throws(Errno) -> OwnedDescriptor {
        let listener = try newSocket()
        _ = try withAddress(port: 0) { address, length in
            bind(listener.rawValue, address, length)
        }
        _ = try retryingInterrupts { Glibc.listen(listener.rawValue, backlog ?? SOMAXCONN) }
        return listener
    }

    /// Takes a port that the kernel chooses, for servers that a test starts on it one after the other.
    ///
    /// Connections to it are refused meanwhile. A server can listen on it if it has SO_REUSEADDR, and
    /// the kernel gives the port to no other socket: tcp(7), `inet_bind_conflict` in
    /// net/ipv4/inet_connection_sock.c.
    ///
    /// - Returns: the socket that keeps the port until it is closed.
    /// - Throws: what socket(2) and bind(2) say.
    package static func reservePort() throws(Errno) -> OwnedDescriptor {
        let socket = try newSocket()
        var option: Int32 = 1
        set(socket, SOL_SOCKET, SO_REUSEADDR, &option)
        _ = try withAddress(port: 0) { address, length in bind(socket.rawValue, address, length) }
        return socket
    }

    /// The port that a socket is bound to.
    package static func port(of socket: borrowing OwnedDescriptor) throws(Errno) -> Int {
        let descriptor = socket.rawValue
        var address = sockaddr_in()
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        _ = try retryingInterrupts {
            withUnsafeMutableBytes(of: &address) { bytes in
                bytes.withMemoryRebound(to: sockaddr.self) {
                    getsockname(descriptor, $0.baseAddress, &length)
                }
            }
        }
        return Int(UInt16(bigEndian: address.sin_port))
    }

    /// The next connection of a listening socket.
    ///
    /// - Throws: what accept(2) says; `.resourceTemporarilyUnavailable` when there is none and the
    ///   listening socket is non-blocking.
    package static func accept(
        _ listener: borrowing OwnedDescriptor
    ) throws(Errno) -> OwnedDescriptor {
        let descriptor = listener.rawValue
        let connection = OwnedDescriptor(
            owning: try retryingInterrupts { cts_accept(descriptor) })
        sendAtOnce(connection)
        return connection
    }

    /// Connects to a port.
    ///
    /// - Parameters:
    ///   - port: the port on 127.0.0.1.
    ///   - source: the last byte of the address to connect from, 127.0.0.x.
    ///   - isBlocking: whether to wait until the connection is made; otherwise the socket is
    ///     non-blocking, and writable once it is made or has failed.
    /// - Returns: the socket.
    /// - Throws: what bind(2) and connect(2) say.
    package static func connect(
        port: Int, from source: UInt8 = 1, isBlocking: Bool = true
    ) throws(Errno) -> OwnedDescriptor {
        let socket = try newSocket(isBlocking: isBlocking)
        let descriptor = socket.rawValue
        sendAtOnce(socket)
        if source != 1 {
            _ = try withAddress(port: 0, on: source) { address, length in
                bind(descriptor, address, length)
            }
        }
        do {
            _ = try withAddress(port: port) { address, length in
                Glibc.connect(descriptor, address, length)
            }
        } catch  where !isBlocking && error == .nowInProgress {}
        return socket
    }

    /// Makes close(2) send a reset and drop what is not yet sent: SO_LINGER with no time, tcp(7).
    package static func resetOnClose(_ socket: borrowing OwnedDescriptor) {
        var option = linger(l_onoff: 1, l_linger: 0)
        set(socket, SOL_SOCKET, SO_LINGER, &option)
    }

    /// Makes calls return `.resourceTemporarilyUnavailable` where they would wait.
    package static func stopBlocking(_ socket: borrowing OwnedDescriptor) throws(Errno) {
        let descriptor = socket.rawValue
        _ = try retryingInterrupts { fcntl(descriptor, F_SETFL, O_NONBLOCK) }
    }

    /// What became of a connection that was made without waiting; `nil` when all is well.
    package static func failure(of socket: borrowing OwnedDescriptor) -> Errno? {
        var code: Int32 = 0
        var length = socklen_t(MemoryLayout<Int32>.size)
        getsockopt(socket.rawValue, SOL_SOCKET, SO_ERROR, &code, &length)
        return code == 0 ? nil : Errno(rawValue: code)
    }

    /// Small messages must not wait for acknowledgements: TCP_NODELAY, tcp(7).
    private static func sendAtOnce(_ socket: borrowing OwnedDescriptor) {
        var option: Int32 = 1
        set(socket, Int32(IPPROTO_TCP), TCP_NODELAY, &option)
    }

    private static func set<Option: BitwiseCopyable>(
        _ socket: borrowing OwnedDescriptor, _ level: Int32, _ name: Int32, _ option: inout Option
    ) {
        let length = socklen_t(MemoryLayout<Option>.size)
        let result = setsockopt(socket.rawValue, level, name, &option, length)
        precondition(result == 0, "setsockopt: \(currentErrno())")
    }

    private static func newSocket(isBlocking: Bool = true) throws(Errno) -> OwnedDescriptor {
        var type = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
        if !isBlocking { type |= Int32(SOCK_NONBLOCK.rawValue) }
        return OwnedDescriptor(owning: try retryingInterrupts { socket(AF_INET, type, 0) })
    }

    private static func withAddress(
        port: Int, on host: UInt8 = 1, _ call: (UnsafePointer<sockaddr>?, socklen_t) -> Int32
    ) throws(Errno) -> Int32 {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = in_port_t(port).bigEndian
        address.sin_addr.s_addr = (0x7f00_0000 | UInt32(host)).bigEndian
        return try retryingInterrupts {
            withUnsafeBytes(of: &address) { bytes in
                bytes.withMemoryRebound(to: sockaddr.self) {
                    call($0.baseAddress, socklen_t(bytes.count))
                }
            }
        }
    }
}

/// A connection of a test, with calls that wait; closed with this object.
package final class StreamSocket: Sendable {
    private let socket: OwnedDescriptor

    package init(_ socket: consuming OwnedDescriptor) { self.socket = socket }

    /// Connects to a port on 127.0.0.1, from 127.0.0.x.
    package convenience init(port: Int, from source: UInt8 = 1) throws(Errno) {
        self.init(try Loopback.connect(port: port, from: source))
    }

    /// Sends all bytes.
    ///
    /// The corresponding C function is `send`.
    package func send(_ bytes: [UInt8]) throws(Errno) {
        var sent = 0
        while sent < bytes.count {
            let start = sent
            sent += try retryingInterrupts {
                bytes.withUnsafeBytes {
                    Glibc.send(
                        socket.rawValue, $0.baseAddress.map { $0 + start }, bytes.count - start,
                        Int32(MSG_NOSIGNAL))
                }
            }
        }
    }

    package func send(_ text: String) throws(Errno) { try send(Array(text.utf8)) }

    /// Receives once, at most `limit` bytes; none at the end.
    ///
    /// The corresponding C function is `recv`.
    package func receive(limit: Int = 1 << 18) throws(Errno) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: limit)
        let count = try retryingInterrupts {
            bytes.withUnsafeMutableBytes { recv(socket.rawValue, $0.baseAddress, $0.count, 0) }
        }
        bytes.removeLast(limit - count)
        return bytes
    }

    /// Receives until there are `count` bytes or the end has come.
    package func receive(count: Int) throws(Errno) -> [UInt8] {
        var bytes: [UInt8] = []
        while bytes.count < count {
            let more = try receive(limit: min(count - bytes.count, 1 << 18))
            if more.isEmpty { break }
            bytes += more
        }
        return bytes
    }

    /// Tells the other side that nothing more comes.
    package func endSending() { shutdown(socket.rawValue, Int32(SHUT_WR)) }

    /// Ends both directions, so that blocked calls of this object return.
    package func interrupt() { shutdown(socket.rawValue, Int32(SHUT_RDWR)) }

    /// Makes the close of this object a reset of the connection.
    package func resetOnClose() { Loopback.resetOnClose(socket) }

    /// Waits for the end of the connection without taking a byte from it.
    package func waitWithoutReading() {
        var byte: UInt8 = 0
        while recv(socket.rawValue, &byte, 1, Int32(MSG_PEEK)) > 0, isEstablished {
            usleep(20_000)
        }
    }

    private var isEstablished: Bool {
        var info = tcp_info()
        var size = socklen_t(MemoryLayout<tcp_info>.size)
        getsockopt(socket.rawValue, Int32(IPPROTO_TCP), TCP_INFO, &info, &size)
        return Int(info.tcpi_state) == TCP_ESTABLISHED
    }

    /// Makes every later call fail with `.resourceTemporarilyUnavailable` after some seconds:
    /// SO_RCVTIMEO and SO_SNDTIMEO, socket(7).
    package func limitWaiting(to seconds: Double) {
        var limit = timeval(
            tv_sec: Int(seconds), tv_usec: Int((seconds - seconds.rounded(.down)) * 1e6))
        let length = socklen_t(MemoryLayout<timeval>.size)
        setsockopt(socket.rawValue, SOL_SOCKET, SO_RCVTIMEO, &limit, length)
        setsockopt(socket.rawValue, SOL_SOCKET, SO_SNDTIMEO, &limit, length)
    }
}
