// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CCurl
internal import CLinuxBlock
internal import Glibc
internal import LinuxIO

/// What the callbacks of one handle work with while a request is under way.
///
/// All of it is used by the one thread that makes the request.
final class Exchange {
    typealias Instant = ContinuousClock.Instant

    /// Why a callback ended the transfer.
    enum Stop {
        case tooLarge
        case headers
        case cancelled
    }

    /// Bytes of headers that an answer may have, interim answers and trailers included.
    ///
    /// Ours have some hundred. This release of libcurl bounds a line (at 100 KB), not their number.
    static let headerLimit = 64 << 10

    let limiter: RateLimiter?
    /// Makes the connections; `nil` for libcurl.
    var connector: (any Connector)?
    /// Sockets that libcurl has in place of others, which were connected before.
    private var standIns: [curl_socket_t: curl_socket_t] = [:]
    /// Why it made none.
    private(set) var connectError: HTTPError?
    private let isCancelled: @Sendable () -> Bool
    private let graceSeconds: Double

    private(set) var stop: Stop?
    /// Whether the empty line that ends an answer's head has come.
    private(set) var isHeadComplete = false
    /// Bytes of the answer so far, headers and body.
    private(set) var received = 0
    /// When a byte last came or went.
    var lastActivity = Instant.now

    /// Those that are open: one, but while several addresses are tried.
    ///
    /// libcurl tells the one in use only when a transfer has ended.
    private(set) var sockets: [Int32] = []

    private var sink: (any ResponseSink)?
    /// The pieces of the request's body.
    private var parts: [UnsafeRawBufferPointer] = []
    /// The piece that is being given, and how much of it was.
    private var part = 0
    private var position = 0
    /// Whether libcurl asks for the body, and does not just get its address.
    private(set) var givesBody = false
    private var headerBytes = 0
    private var cancelledAt: Instant?

    init(limiter: RateLimiter?, isCancelled: @escaping @Sendable () -> Bool, grace: Double) {
        self.limiter = limiter
        self.isCancelled = isCancelled
        graceSeconds = grace
    }

    /// Prepares for an attempt.
    func begin(_ request: HTTPRequest, into sink: any ResponseSink) {
        sink.reset()
        self.sink = sink
        parts = request.parts.isEmpty ? request.body.map { [$0] } ?? [] : request.parts
        givesBody = limiter != nil || !request.parts.isEmpty
        part = 0
        position = 0
        headerBytes = 0
        isHeadComplete = false
        received = 0
        stop = nil
        connectError = nil
        cancelledAt = nil
        lastActivity = .now
    }

    /// Lets go of what belongs to the caller.
    func end() {
        sink = nil
        parts = []
    }

    /// Whether the caller has wished to end for longer than a request in work is granted.
    func isOver() -> Bool {
        guard isCancelled() else { return false }
        let now = Instant.now
        let start = cancelledAt ?? now
        cancelledAt = start
        guard (now - start) / .seconds(1) >= graceSeconds else { return false }
        stop = stop ?? .cancelled
        return true
    }

    /// Bytes of the connection that are under way, as far as somebody knows of them.
    var kernelBytes: UInt64 {
        sockets.reduce(0) {
            $0 &+ (connector?.activity(of: standIns[$1] ?? $1) ?? ActivityWatch.kernelBytes($1))
        }
    }

    private func connect() throws(HTTPError) -> curl_socket_t {
        // However long that takes, it is not the server's silence.
        defer { lastActivity = .now }
        guard let connector else { throw HTTPError(.unreachable, "nothing connects") }
        let socket = try connector.connect(unless: isOver)
        guard Self.needsStandIns else { return socket }
        let kind = Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue)
        let standIn = Glibc.socket(AF_INET, kind, 0)
        guard standIn >= 0, fcntl(socket, F_SETFL, O_NONBLOCK) == 0 else {
            connector.disconnect(socket)
            throw HTTPError(.unreachable, "no socket: \(currentErrno())")
        }
        standIns[standIn] = socket
        return standIn
    }

    /// Whether libcurl cannot take what is connected.
    ///
    /// Before 8.0 it does not keep a connection whose other end has no address, and 7.88 connects
    /// sockets that are connected, which fails. It is given a socket of UDP, which it can
    /// connect without sending anything; the real one takes its place before the first request.
    private static let needsStandIns = cc_version() < 0x080000

    private func replaceStandIns() -> Bool {
        standIns.allSatisfy { clb_duplicate($1, $0) >= 0 }
    }

    private func disconnect(_ socket: curl_socket_t) -> Int32 {
        sockets.removeAll { $0 == socket }
        guard let connector else { return close(socket) }
        guard let real = standIns.removeValue(forKey: socket) else {
            connector.disconnect(socket)
            return 0
        }
        connector.disconnect(real)
        return close(socket)
    }

    private func pass(_ bytes: Int) -> Bool {
        guard let limiter else { return true }
        // The time slept here is not the server's silence.
        defer { lastActivity = .now }
        return limiter.pass(bytes, isOver: isOver)
    }

    private func takeHeader(_ line: UnsafeRawBufferPointer) -> Bool {
        headerBytes += line.count
        received += line.count
        // An interim answer's empty line is followed by another head.
        if line.starts(with: "HTTP/".utf8) {
            isHeadComplete = false
        } else if line.elementsEqual("\r\n".utf8) || line.elementsEqual("\n".utf8) {
            isHeadComplete = true
        }
        guard headerBytes <= Self.headerLimit else {
            stop = .headers
            return false
        }
        limiter?.charge(line.count)
        return true
    }

    private func takeBody(_ bytes: UnsafeRawBufferPointer) -> Bool {
        received += bytes.count
        guard let sink, sink.append(bytes) else {
            stop = .tooLarge
            return false
        }
        return pass(bytes.count)
    }

    /// Gives the next bytes of the request's body; `nil` to end the transfer.
    private func giveBody(_ room: UnsafeMutableRawBufferPointer) -> Int? {
        let wanted = min(room.count, limiter?.portion ?? .max)
        var count = 0
        while count < wanted, part < parts.count {
            let length = min(wanted - count, parts[part].count - position)
            UnsafeMutableRawBufferPointer(rebasing: room[count..<count + length]).copyMemory(
                from: UnsafeRawBufferPointer(
                    rebasing: parts[part][position..<position + length]))
            count += length
            position += length
            if position == parts[part].count { (part, position) = (part + 1, 0) }
        }
        guard count == 0 || pass(count) else { return nil }
        return count
    }

    private func seek(_ offset: Int) -> Bool {
        var rest = offset
        for (index, piece) in parts.enumerated() {
            if rest < piece.count {
                (part, position) = (index, rest)
                return true
            }
            rest -= piece.count
        }
        (part, position) = (parts.count, 0)
        return rest == 0
    }
}

/// The functions that libcurl calls; each gets the exchange as its last or first argument.
extension Exchange {
    private static func from(_ pointer: UnsafeMutableRawPointer?) -> Exchange? {
        pointer.map { Unmanaged<Exchange>.fromOpaque($0).takeUnretainedValue() }
    }

    static let onHeader: curl_write_callback = { bytes, size, items, pointer in
        let count = size * items
        let line = UnsafeRawBufferPointer(start: bytes, count: count)
        return from(pointer)?.takeHeader(line) == true ? count : 0
    }

    static let onBody: curl_write_callback = { bytes, size, items, pointer in
        let count = size * items
        let buffer = UnsafeRawBufferPointer(start: bytes, count: count)
        return from(pointer)?.takeBody(buffer) == true ? count : 0
    }

    static let onRead: curl_read_callback = { room, size, items, pointer in
        let buffer = UnsafeMutableRawBufferPointer(start: room, count: size * items)
        return from(pointer)?.giveBody(buffer) ?? Int(CURL_READFUNC_ABORT)
    }

    static let onSeek: curl_seek_callback = { pointer, offset, origin in
        guard origin == SEEK_SET, from(pointer)?.seek(Int(offset)) == true else {
            return CURL_SEEKFUNC_FAIL
        }
        return CURL_SEEKFUNC_OK
    }

    /// Notes a socket, and keeps the kernel from receiving more ahead than the limit is worth.
    static let onOpen: curl_sockopt_callback = { pointer, socket, _ in
        guard let exchange = from(pointer) else { return CURL_SOCKOPT_OK }
        exchange.sockets.append(socket)
        if exchange.connector != nil {
            return exchange.standIns.isEmpty ? CURL_SOCKOPT_ALREADY_CONNECTED : CURL_SOCKOPT_OK
        }
        guard let limiter = exchange.limiter else { return CURL_SOCKOPT_OK }
        var size = Int32(limiter.receiveWindow)
        // Advice: with a larger window the limit holds all the same, only less smoothly.
        setsockopt(socket, SOL_SOCKET, SO_RCVBUF, &size, socklen_t(MemoryLayout<Int32>.size))
        return CURL_SOCKOPT_OK
    }

    /// Gives a connection in place of the socket that libcurl would make.
    static let onConnect: curl_opensocket_callback = { pointer, _, _ in
        let exchange = from(pointer)
        do throws(HTTPError) { return try exchange?.connect() ?? -1 } catch {
            exchange?.connectError = error
            return -1
        }
    }

    /// Called once the connection stands, before each request.
    static let onReady: curl_prereq_callback = { pointer, _, _, _, _ in
        from(pointer)?.replaceStandIns() == true ? CURL_PREREQFUNC_OK : CURL_PREREQFUNC_ABORT
    }

    static let onClose: curl_closesocket_callback = { pointer, socket in
        from(pointer)?.disconnect(socket) ?? close(socket)
    }
}
