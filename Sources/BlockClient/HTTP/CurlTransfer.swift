// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CCurl
internal import CLinuxBlock
internal import Glibc
internal import LinuxIO

/// The state of one handle's callbacks during a request.
///
/// Only the thread that makes the request uses it.
final class CurlTransfer {
    typealias Instant = ContinuousClock.Instant
    typealias GivenUp = @Sendable () -> Bool

    enum Stop {
        case tooLarge
        case memory
        case headers
        case cancelled
    }

    /// Limit of an answer's headers in bytes, including interim answers and trailers.
    ///
    /// blkferry's answers have some hundred bytes. Older releases of libcurl limit the length of a
    /// line (100 KB), but not the number of lines.
    static let headerLimit = 64 << 10

    let limiter: RateLimiter?
    let connector: (any Connector)?
    /// Placeholder sockets in libcurl, and the connected socket behind each.
    private var standIns: [curl_socket_t: curl_socket_t] = [:]
    private(set) var connectError: IOError?
    private let isCancelled: @Sendable () -> Bool
    /// Whether the transport has given up.
    let hasGivenUp: GivenUp
    /// Seconds for which the request may continue after a cancellation.
    private var graceSeconds = 0.0
    /// The connector's limit; `nil` for none.
    private var connectSeconds: Double?

    private(set) var stop: Stop?
    /// Whether the empty line that ends the head has arrived.
    private(set) var isHeadComplete = false
    /// Bytes of headers and body so far.
    private(set) var received = 0
    /// The time of the last byte in either direction.
    var lastActivity = Instant.now
    var pace = Pace(patience: 0, bytes: 0)
    /// Bytes of the connection at the last call of `progress`.
    private var counted: UInt64 = 0
    /// Bytes that the connection has moved for this exchange, in both directions.
    private(set) var moved: UInt64 = 0
    /// Whether the connection has moved far more than the request and its answer have.
    private(set) var isFramingEndless = false

    /// The open sockets; more than one only while libcurl tries several addresses.
    ///
    /// libcurl reports the socket in use only after a transfer.
    private(set) var sockets: [Int32] = []

    private var sink: (any ResponseSink)?
    private var parts: [UnsafeRawBufferPointer] = []
    /// The current piece, and the number of its bytes that libcurl has taken.
    private var part = 0
    private var position = 0
    /// Whether libcurl takes the body through a callback, not from its address.
    private(set) var givesBody = false
    private var headerBytes = 0
    private var cancelledAt: Instant?
    private var fulfilledAt: Instant?

    /// Time for the end of an answer whose sink is fulfilled, and whose connection the next request
    /// could use.
    private static let endPatience = Duration.seconds(5)

    init(_ options: HTTPTransport.Options, _ limiter: RateLimiter?, _ hasGivenUp: @escaping GivenUp)
    {
        self.limiter = limiter
        connector = options.connector
        isCancelled = options.isCancelled
        self.hasGivenUp = hasGivenUp
    }

    func begin(
        _ request: HTTPRequest, into sink: any ResponseSink, connectSeconds: Double?, grace: Double
    ) {
        self.connectSeconds = connectSeconds
        graceSeconds = grace
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
        fulfilledAt = nil
        lastActivity = .now
        counted = kernelBytes
        moved = 0
        isFramingEndless = false
        pace = Pace(patience: request.silence, bytes: 0)
    }

    /// Releases the caller's objects.
    func end() {
        sink = nil
        parts = []
    }

    /// Whether the grace time after a cancellation is over.
    func isAborted() -> Bool {
        guard isCancelled() else { return false }
        let now = Instant.now
        let start = cancelledAt ?? now
        cancelledAt = start
        guard (now - start) / .seconds(1) >= graceSeconds else { return false }
        stop = stop ?? .cancelled
        return true
    }

    /// Whether the sink needs nothing more, and the end of the answer has had its time.
    func isFulfilled() -> Bool {
        guard isHeadComplete, sink?.isFulfilled == true else { return false }
        let now = Instant.now
        let start = fulfilledAt ?? now
        fulfilledAt = start
        return now - start >= Self.endPatience
    }

    /// Bytes of the connection, including those in transit, as far as the kernel or the connector
    /// counts them.
    var kernelBytes: UInt64 {
        sockets.reduce(0) {
            $0 &+ (connector?.activity(of: standIns[$1] ?? $1) ?? ActivityWatch.kernelBytes($1))
        }
    }

    /// Counts the bytes of the connection, and returns how many bytes of this exchange are
    /// progress.
    ///
    /// Bytes of a body are. A server may send headers, trailers and chunk extensions (RFC 9112,
    /// section 7.1.1) byte by byte, and libcurl hands over nothing of the extensions. All bytes
    /// beside the bodies count only up to `heldBytes`, and at the usual least rate even if the
    /// request allows a lower one. So they gain a server some minutes at most.
    ///
    /// - Parameters:
    ///   - known: bytes of the request's body that were sent, and of the answer so far.
    ///   - rate: the request's least rate in bytes a second.
    func progress(known: Int, rate: Double) -> UInt64 {
        let bytes = kernelBytes
        let all: UInt64
        if bytes > 0 {
            // A new connection, which counts from 0, may have replaced a dead one.
            moved &+= bytes >= counted ? bytes - counted : bytes
            counted = bytes
            let explained = UInt64(clamping: known) &* Self.framingFactor
            if moved > explained &+ Self.framingLimit { isFramingEndless = true }
            all = moved
        } else {
            all = UInt64(clamping: known)
        }
        let bodies = min(all, UInt64(clamping: known - headerBytes))
        let others = Double(min(all - bodies, Self.heldBytes)) * min(1, rate / Pace.leastRate)
        return bodies &+ UInt64(others)
    }

    /// Most bytes on the connection for one byte of an answer; a chunk of one byte takes six.
    private static let framingFactor: UInt64 = 8
    /// Bytes that TLS and ssh may hold until they can decrypt a record or a packet, with room for a
    /// head.
    private static let heldBytes: UInt64 = 128 << 10
    /// Bytes that the kernel and ssh may receive before libcurl reads them, with room for TLS.
    private static let framingLimit: UInt64 = 32 << 20

    private func connect() throws(IOError) -> curl_socket_t {
        // The time to connect does not count as the server's silence.
        defer { lastActivity = .now }
        guard let connector else { throw .transport("nothing connects") }
        let socket = try connector.connect(within: connectSeconds) { isAborted() || hasGivenUp() }
        guard Self.needsStandIns else { return socket }
        let kind = Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue)
        let standIn = Glibc.socket(AF_INET, kind, 0)
        guard standIn >= 0, fcntl(socket, F_SETFL, O_NONBLOCK) == 0 else {
            connector.disconnect(socket)
            throw .transport("no socket: \(currentErrno())")
        }
        standIns[standIn] = socket
        return standIn
    }

    /// Whether libcurl needs a placeholder socket.
    ///
    /// Before 8.0 libcurl does not reuse a connection whose peer has no address, and 7.88 fails
    /// because it connects sockets that are already connected. It gets a UDP socket, which it can
    /// connect without sending anything. The connected socket replaces it before the first request.
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
        let start = Instant.now
        // The time slept here does not count as the server's silence.
        defer {
            lastActivity = .now
            pace.excuse(lastActivity - start)
        }
        return limiter.pass(bytes, isCancelled: isAborted)
    }

    private func takeHeader(_ line: UnsafeRawBufferPointer) -> Bool {
        headerBytes += line.count
        received += line.count
        // Another head follows the empty line of an interim answer.
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
            stop = sink?.isOutOfMemory == true ? .memory : .tooLarge
            return false
        }
        return pass(bytes.count)
    }

    /// Returns the number of bytes copied from the request's body; `nil` ends the transfer.
    private func giveBody(_ room: UnsafeMutableRawBufferPointer) -> Int? {
        let wanted = min(room.count, limiter?.portion ?? .max)
        var count = 0
        while count < wanted, part < parts.count {
            let length = min(wanted - count, parts[part].count - position)
            slice(room, count, count + length)
                .copyMemory(from: slice(parts[part], position, position + length))
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

/// The callbacks of libcurl; each gets the exchange as its first or last argument.
extension CurlTransfer {
    private static func from(_ pointer: UnsafeMutableRawPointer?) -> CurlTransfer? {
        pointer.map { Unmanaged<CurlTransfer>.fromOpaque($0).takeUnretainedValue() }
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

    /// Records a socket, and limits what the kernel receives ahead of the rate limit.
    static let onOpen: curl_sockopt_callback = { pointer, socket, _ in
        guard let transfer = from(pointer) else { return CURL_SOCKOPT_OK }
        transfer.sockets.append(socket)
        // What a connector has counted before belongs to no transfer.
        transfer.counted = transfer.kernelBytes
        if transfer.connector != nil {
            return transfer.standIns.isEmpty ? CURL_SOCKOPT_ALREADY_CONNECTED : CURL_SOCKOPT_OK
        }
        guard let limiter = transfer.limiter else { return CURL_SOCKOPT_OK }
        var size = Int32(limiter.receiveWindow)
        // The result is ignored. With a larger window the limit still holds, only less smoothly.
        setsockopt(socket, SOL_SOCKET, SO_RCVBUF, &size, socklen_t(MemoryLayout<Int32>.size))
        return CURL_SOCKOPT_OK
    }

    /// Returns a connection of the connector in place of a new socket.
    static let onConnect: curl_opensocket_callback = { pointer, _, _ in
        let transfer = from(pointer)
        do throws(IOError) { return try transfer?.connect() ?? -1 } catch {
            transfer?.connectError = error
            return -1
        }
    }

    /// Called before each request on a completed connection.
    static let onReady: curl_prereq_callback = { pointer, _, _, _, _ in
        from(pointer)?.replaceStandIns() == true ? CURL_PREREQFUNC_OK : CURL_PREREQFUNC_ABORT
    }

    static let onClose: curl_closesocket_callback = { pointer, socket in
        from(pointer)?.disconnect(socket) ?? close(socket)
    }
}
