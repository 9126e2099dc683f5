// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Glibc
import LinuxIO
import Synchronization

/// A server on the loopback address that does with each connection what a test says.
final class ScriptedServer: Sendable {
    typealias Script = @Sendable (_ connection: Connection, _ number: Int) -> Void

    let host: String
    let port: UInt16
    private let receiveBuffer: Int32?
    private let script: Script
    private let state = Mutex(State())

    private struct State {
        var listener: Int32 = -1
        var open: Set<Int32> = []
        var connections = 0
        var requests = 0
    }

    /// Starts a server.
    ///
    /// - Parameters:
    ///   - host: `127.0.0.1` or `::1`.
    ///   - receiveBuffer: bytes that the kernel takes in for it; `nil` for the usual.
    ///   - script: what it does with a connection, which is closed when it returns; they are
    ///     numbered from 0.
    init(host: String = "127.0.0.1", receiveBuffer: Int32? = nil, _ script: @escaping Script) {
        self.host = host
        self.receiveBuffer = receiveBuffer
        self.script = script
        let (listener, port) = Self.listen(host, port: 0, receiveBuffer)
        self.port = port
        state.withLock { $0.listener = listener }
        acceptAll(listener)
    }

    var base: String { host.contains(":") ? "http://[\(host)]:\(port)" : "http://\(host):\(port)" }
    var connections: Int { state.withLock { $0.connections } }
    var requests: Int { state.withLock { $0.requests } }

    /// Refuses connections and cuts those that are open.
    func stop() {
        state.withLock {
            if $0.listener >= 0 { shutdown($0.listener, Int32(SHUT_RDWR)) }
            $0.listener = -1
            for socket in $0.open { shutdown(socket, Int32(SHUT_RDWR)) }
        }
    }

    /// Takes connections again, at the same port.
    func restart() {
        let (listener, _) = Self.listen(host, port: port, receiveBuffer)
        state.withLock { $0.listener = listener }
        acceptAll(listener)
    }

    private func acceptAll(_ listener: Int32) {
        _ = Threads.start(count: 1) { _ in
            while true {
                let socket = accept(listener, nil, nil)
                guard socket >= 0 else { break }
                let number = self.state.withLock {
                    $0.open.insert(socket)
                    $0.connections += 1
                    return $0.connections - 1
                }
                _ = Threads.start(count: 1) { _ in
                    self.script(Connection(socket, self), number)
                    self.state.withLock {
                        $0.open.remove(socket)
                        close(socket)
                    }
                }
            }
            close(listener)
        }
    }

    fileprivate func countRequest() { state.withLock { $0.requests += 1 } }

    private static func listen(
        _ host: String, port: UInt16, _ receiveBuffer: Int32?
    ) -> (socket: Int32, port: UInt16) {
        let isV6 = host.contains(":")
        let family = isV6 ? AF_INET6 : AF_INET
        let listener = socket(family, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        var one: Int32 = 1
        setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, 4)
        if var receiveBuffer { setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &receiveBuffer, 4) }
        var address = sockaddr_in6()
        var size = socklen_t(MemoryLayout<sockaddr_in6>.size)
        let bound = withUnsafeMutableBytes(of: &address) { bytes -> UInt16? in
            guard let start = bytes.baseAddress else { return nil }
            bytes.storeBytes(of: sa_family_t(family), as: sa_family_t.self)
            bytes.storeBytes(of: port.bigEndian, toByteOffset: 2, as: UInt16.self)
            inet_pton(family, host, start + (isV6 ? 8 : 4))
            let pointer = start.assumingMemoryBound(to: sockaddr.self)
            if !isV6 { size = socklen_t(MemoryLayout<sockaddr_in>.size) }
            guard bind(listener, pointer, size) == 0, Glibc.listen(listener, 64) == 0,
                getsockname(listener, pointer, &size) == 0
            else { return nil }
            return UInt16(bigEndian: bytes.load(fromByteOffset: 2, as: UInt16.self))
        }
        guard let bound else { fatalError("\(host): cannot listen: errno \(errno)") }
        return (listener, bound)
    }

    /// Whether this machine has IPv6 on the loopback interface.
    static let hasV6: Bool = {
        readSmallFile("/proc/net/if_inet6")?
            .contains("00000000000000000000000000000001") ?? false
    }()
}

/// One request as it came.
struct ReceivedRequest {
    /// With the empty line at its end.
    var head: String
    var body: [UInt8]
    var byteCount: Int { head.utf8.count + body.count }
}

/// A connection to a scripted server.
struct Connection {
    private let socket: Int32
    private let server: ScriptedServer

    fileprivate init(_ socket: Int32, _ server: ScriptedServer) {
        self.socket = socket
        self.server = server
    }

    /// Reads a request's head, byte by byte so that nothing of its body is lost.
    func readHead() -> String? {
        var head: [UInt8] = []
        while !head.suffix(4).elementsEqual("\r\n\r\n".utf8) {
            guard let byte = read(1).first else { return nil }
            head.append(byte)
        }
        server.countRequest()
        return String(decoding: head, as: UTF8.self)
    }

    /// Reads a request; `nil` at the end of the connection.
    func readRequest() -> ReceivedRequest? {
        guard let head = readHead() else { return nil }
        let length = head.split(separator: "\r\n").first { $0.hasPrefix("Content-Length: ") }
            .flatMap { Int($0.dropFirst("Content-Length: ".count)) }
        var body: [UInt8] = []
        while body.count < length ?? 0 {
            let more = read((length ?? 0) - body.count)
            if more.isEmpty { return nil }
            body += more
        }
        return ReceivedRequest(head: head, body: body)
    }

    /// Reads once, at most so many bytes; none at the end.
    func read(_ limit: Int) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: min(limit, 1 << 20)) { room, count in
            count = max(0, recv(socket, room.baseAddress, room.count, 0))
        }
    }

    /// Writes everything; `false` where the other end is gone.
    @discardableResult
    func write(_ bytes: [UInt8]) -> Bool {
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes {
                send(socket, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
            }
            guard count > 0 else { return false }
            rest = rest.dropFirst(count)
        }
        return true
    }

    @discardableResult
    func write(_ text: String) -> Bool { write([UInt8](text.utf8)) }

    func answer(_ status: Int = 200, type: String = "text/plain", _ body: [UInt8] = []) {
        write(Self.head(status, type: type, length: body.count) + body)
    }

    static func head(_ status: Int = 200, type: String = "text/plain", length: Int) -> [UInt8] {
        let text =
            "HTTP/1.1 \(status) X\r\nContent-Type: \(type)\r\nContent-Length: \(length)\r\n\r\n"
        return [UInt8](text.utf8)
    }

    /// Answers every request of the connection.
    func serve(_ answer: (ReceivedRequest) -> [UInt8]) {
        while let request = readRequest() {
            let body = answer(request)
            self.answer(200, body)
        }
    }

    /// Cuts the connection so that the other end gets a reset.
    func reset() {
        var value = linger(l_onoff: 1, l_linger: 0)
        setsockopt(socket, SOL_SOCKET, SO_LINGER, &value, socklen_t(MemoryLayout<linger>.size))
    }

    /// Ends the connection in both directions; what was written still arrives.
    func close() { shutdown(socket, Int32(SHUT_RDWR)) }

    /// Does nothing until the other end is gone.
    func waitForEnd() { while !read(1).isEmpty {} }

    /// Waits for the end of the connection without taking a byte from it.
    func waitWithoutReading() {
        var byte: UInt8 = 0
        while recv(socket, &byte, 1, Int32(MSG_PEEK)) > 0, isOpen {
            usleep(20_000)
        }
    }

    private var isOpen: Bool {
        var info = tcp_info()
        var size = socklen_t(MemoryLayout<tcp_info>.size)
        getsockopt(socket, Int32(IPPROTO_TCP), TCP_INFO, &info, &size)
        return Int(info.tcpi_state) == TCP_ESTABLISHED
    }
}
