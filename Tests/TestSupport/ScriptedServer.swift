// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
internal import LinuxIO
internal import Synchronization
internal import SystemPackage

/// A server on the loopback address that runs a test's script on each connection; it ends with
/// this object.
package final class ScriptedServer: Sendable {
    package typealias Script = @Sendable (_ connection: ScriptedConnection, _ number: Int) -> Void
    package typealias StreamScript = @Sendable (StreamSocket) throws -> Void

    package let host: String
    package let port: Int
    /// Keeps the port for `restart`.
    private let reservation: OwnedDescriptor
    private let receiveBuffer: Int32?
    private let script: Script
    private let state = ScriptedServerState()
    private let thread = Mutex<Threads.Running?>(nil)

    /// Starts a server.
    ///
    /// - Parameters:
    ///   - host: `127.0.0.1` or `::1`.
    ///   - receiveBuffer: bytes that the kernel takes in for it; `nil` for the usual.
    ///   - script: what it does with a connection, in a thread of its own. The connection is closed
    ///     when the script returns. Connections are numbered from 0.
    package init(
        host: String = "127.0.0.1", receiveBuffer: Int32? = nil, _ script: @escaping Script
    ) {
        self.host = host
        self.receiveBuffer = receiveBuffer
        self.script = script
        let (reservation, port) = Self.bind(host, port: 0)
        self.reservation = OwnedDescriptor(owning: reservation)
        self.port = Int(port)
        restart()
    }

    deinit { stop() }

    package var base: String {
        host.contains(":") ? "http://[\(host)]:\(port)" : "http://\(host):\(port)"
    }
    package var connections: Int { state.values.withLock { $0.connections } }
    /// Heads of requests that scripts have read.
    package var requests: Int { state.values.withLock { $0.requests } }

    /// Refuses connections, cuts those that are open, and waits until all scripts have returned.
    package func stop() {
        guard let running = thread.withLock({ $0.take() }) else { return }
        state.values.withLock { values in
            // Wakes the thread that accepts.
            if values.listener >= 0 { shutdown(values.listener, Int32(SHUT_RDWR)) }
            for connection in values.open { connection.interrupt() }
        }
        running.wait()
    }

    /// Takes connections again, at the same port.
    package func restart() {
        let (listener, _) = Self.bind(host, port: UInt16(port))
        if var receiveBuffer { setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &receiveBuffer, 4) }
        guard listen(listener, SOMAXCONN) == 0 else {
            fatalError("\(base): cannot listen: \(currentErrno())")
        }
        state.values.withLock { $0.listener = listener }
        thread.withLock { $0 = run(listener) }
    }

    private func run(_ listener: Int32) -> Threads.Running {
        let state = state
        let script = script
        return Threads.start(count: 1, orInline: false) { _ in
            Self.serve(listener, state, script)
        }
    }

    private static func serve(
        _ descriptor: Int32, _ state: ScriptedServerState, _ script: @escaping Script
    ) {
        let listener = OwnedDescriptor(owning: descriptor)
        var threads: [Worker] = []
        while let socket = try? Loopback.accept(listener) {
            let connection = StreamSocket(socket)
            let number = state.begin(connection)
            threads.append(
                Worker(
                    Threads.start(count: 1) { _ in
                        script(ScriptedConnection(connection, state), number)
                        state.end(connection)
                    }))
        }
        state.values.withLock { values in
            values.listener = -1
            for connection in values.open { connection.interrupt() }
        }
        // Not before: `stop` may still use the descriptor.
        _ = consume listener
        for thread in threads { thread.wait() }
    }

    private final class Worker {
        private var running: Threads.Running?
        init(_ running: consuming Threads.Running) { self.running = consume running }
        func wait() { running.take()?.wait() }
    }

    /// A socket of its own at a port, 0 for one that the kernel chooses.
    ///
    /// A port that a socket is bound to and that none listens on is free for this (see
    /// `Loopback.reservePort`).
    private static func bind(_ host: String, port: UInt16) -> (socket: Int32, port: UInt16) {
        let isV6 = host.contains(":")
        let family = isV6 ? AF_INET6 : AF_INET
        let socket = Glibc.socket(family, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        var one: Int32 = 1
        setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &one, 4)
        var address = sockaddr_in6()
        var size = socklen_t(MemoryLayout<sockaddr_in6>.size)
        let bound = withUnsafeMutableBytes(of: &address) { bytes -> UInt16? in
            guard let start = bytes.baseAddress else { return nil }
            bytes.storeBytes(of: sa_family_t(family), as: sa_family_t.self)
            bytes.storeBytes(of: port.bigEndian, toByteOffset: 2, as: UInt16.self)
            inet_pton(family, host, start + (isV6 ? 8 : 4))
            let pointer = start.assumingMemoryBound(to: sockaddr.self)
            if !isV6 { size = socklen_t(MemoryLayout<sockaddr_in>.size) }
            guard Glibc.bind(socket, pointer, size) == 0, getsockname(socket, pointer, &size) == 0
            else { return nil }
            return UInt16(bigEndian: bytes.load(fromByteOffset: 2, as: UInt16.self))
        }
        guard let bound else { fatalError("\(host):\(port): cannot bind: \(currentErrno())") }
        return (socket, bound)
    }

    /// Whether this machine has IPv6 on the loopback interface.
    package static let hasV6: Bool = {
        readSmallFile("/proc/net/if_inet6")?
            .contains("00000000000000000000000000000001") ?? false
    }()
}

extension ScriptedServer {
    /// A server whose script gets the socket; an error ends the connection.
    package static func streams(_ script: @escaping StreamScript) -> ScriptedServer {
        ScriptedServer { connection, _ in
            try? script(connection.stream)
        }
    }

    /// A server that sends back whatever comes.
    package static func echo() -> ScriptedServer {
        streams { stream in
            while true {
                let bytes = try stream.receive()
                if bytes.isEmpty { return }
                try stream.send(bytes)
            }
        }
    }

    /// A server that answers each request with a body that tells how long the request's was.
    package static func http() -> ScriptedServer {
        streams { stream in
            while let request = try HTTPMessage(from: stream) {
                let body = "served \(request.body.count)"
                try stream.send(
                    "HTTP/1.1 200 OK\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)")
            }
        }
    }
}

/// What a scripted server shares with its threads.
final class ScriptedServerState: Sendable {
    struct Values {
        var listener: Int32 = -1
        var open: [StreamSocket] = []
        var connections = 0
        var requests = 0
    }

    let values = Mutex(Values())

    /// The number of the connection.
    func begin(_ connection: StreamSocket) -> Int {
        values.withLock { values in
            values.open.append(connection)
            values.connections += 1
            return values.connections - 1
        }
    }

    func end(_ connection: StreamSocket) {
        values.withLock { values in values.open.removeAll { $0 === connection } }
    }

    func countRequest() { values.withLock { $0.requests += 1 } }
}
