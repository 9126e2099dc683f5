// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
internal import LinuxIO
internal import SystemPackage

/// One direction of a connection.
struct ProxyHalf {
    let direction: ProxyDirection
    var lane = ProxyLane()
    /// Nothing more is read from its sender.
    var hasEnded = false
    /// Its receiver has been told of the end.
    var isDelivered = false
    /// Something has arrived that its receiver does not take yet.
    var isBlocked = false

    init(_ direction: ProxyDirection) { self.direction = direction }
}

/// Bytes that a direction may send at once, as time gives them to it.
struct ProxyAllowance {
    private var bytes = 0.0
    private var filled = ContinuousClock.now

    /// How long what was saved lasts; a line that was idle sends no more than this at once.
    private static let longest = 0.02

    /// Whole bytes that may go now.
    mutating func available(_ bytesPerSecond: Int) -> Int {
        let now = ContinuousClock.now
        let rate = Double(bytesPerSecond)
        bytes = min(bytes + rate * ((now - filled) / .seconds(1)), max(1, rate * Self.longest))
        filled = now
        return Int(bytes)
    }

    mutating func take(_ count: Int) { bytes -= Double(count) }
}

/// Sends the bytes of one connection, and knows when the connection is to be cut.
struct ProxyCut {
    enum Result {
        case sent(Int)
        case blocked
        /// The rate permits nothing at present.
        case paced
        case stalled
        case cut(isReset: Bool)
        case failed
    }

    private var forwarded = 0
    /// What `end` was drawn from.
    private var range: ClosedRange<Int>?
    /// The connection is cut when it has forwarded so many bytes.
    private var end = 0

    /// Sends at once what can be sent.
    mutating func send(
        _ bytes: ArraySlice<UInt8>, to socket: Int32?, _ direction: ProxyDirection,
        _ state: inout ProxyState.Guarded
    ) -> Result {
        guard let socket else { return .failed }
        guard !state.faults.isStalled else { return .stalled }
        var limit = bytes.count
        if let left = bytesToCut(&state) {
            guard left > 0 else { return cut(&state) }
            limit = min(limit, left)
        }
        if let left = state.faults.stallAfter {
            guard left > 0 else { return stall(&state) }
            limit = min(limit, left)
        }
        if let rate = state.faults.bytesPerSecond {
            let left = state.allowances[direction, default: ProxyAllowance()].available(rate)
            guard left > 0 else { return .paced }
            limit = min(limit, left)
        }
        let count = bytes.prefix(limit).withUnsafeBytes {
            Glibc.send(
                socket, $0.baseAddress, $0.count,
                Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT))
        }
        guard count >= 0 else {
            let isBlocked = [.resourceTemporarilyUnavailable, .interrupted].contains(currentErrno())
            return isBlocked ? .blocked : .failed
        }
        note(count, direction, &state)
        if bytesToCut(&state) == 0 { return cut(&state) }
        return .sent(count)
    }

    private mutating func note(
        _ count: Int, _ direction: ProxyDirection, _ state: inout ProxyState.Guarded
    ) {
        forwarded += count
        if state.faults.bytesPerSecond != nil { state.allowances[direction]?.take(count) }
        switch direction {
        case .toServer: state.counters.bytesToServer += count
        case .toClient: state.counters.bytesToClient += count
        }
        if let left = state.faults.stallAfter {
            state.faults.stallAfter = left - count
            if left == count { _ = stall(&state) }
        }
    }

    /// Bytes that are left until the connection is cut; `nil` when it is not to be.
    private mutating func bytesToCut(_ state: inout ProxyState.Guarded) -> Int? {
        if range != state.faults.cutEvery {
            range = state.faults.cutEvery
            end = range.map { forwarded + Int.random(in: $0, using: &state.generator) } ?? 0
        }
        return range == nil || state.faults.cutsLeft <= 0 ? nil : max(0, end - forwarded)
    }

    private func cut(_ state: inout ProxyState.Guarded) -> Result {
        state.faults.cutsLeft -= 1
        state.counters.cuts += 1
        return .cut(isReset: Bool.random(using: &state.generator))
    }

    private func stall(_ state: inout ProxyState.Guarded) -> Result {
        state.faults.stallAfter = nil
        state.faults.isStalled = true
        return .stalled
    }
}

/// An answer that a proxy gives itself.
struct ProxyAnswer {
    let bytes: [UInt8]
    /// Whether the connection ends with it.
    let isLast: Bool

    init(_ answers: NetworkFaults.Answers, to head: RequestHead) {
        // Where no length tells the end of the body, the next request cannot be found.
        isLast = answers.isClosing || head.isLast || head.contentLength == nil
        let reason = answers.status == 503 ? "Service Unavailable" : "Internal Server Error"
        let body = "\(answers.status) \(reason), says the proxy\n"
        var text = "HTTP/1.1 \(answers.status) \(reason)\r\n"
        text += "Content-Type: text/plain\r\nContent-Length: \(body.utf8.count)\r\n"
        if let seconds = answers.retryAfter { text += "Retry-After: \(seconds)\r\n" }
        if isLast { text += "Connection: close\r\n" }
        bytes = Array((text + "\r\n" + (head.method == "HEAD" ? "" : body)).utf8)
    }
}

/// What receiving from a socket without waiting gives.
enum ProxyReceived {
    case bytes([UInt8])
    case nothing
    case end
    case failed
}

extension OwnedDescriptor? {
    mutating func resetOnClose() {
        if let descriptor = take() {
            Loopback.resetOnClose(descriptor)
            self = consume descriptor
        }
    }

    private var number: Int32 {
        switch self {
        case .some(let descriptor): descriptor.rawValue
        case .none: -1
        }
    }

    /// Whether a connection that was made without waiting has failed.
    var isFailed: Bool {
        switch self {
        case .some(let descriptor): Loopback.failure(of: descriptor) != nil
        case .none: true
        }
    }

    /// Receives what is there, as far as it fits into the buffer.
    func receive(_ buffer: inout [UInt8]) -> ProxyReceived {
        let socket = number
        guard socket >= 0 else { return .failed }
        let count = buffer.withUnsafeMutableBytes {
            recv(socket, $0.baseAddress, $0.count, Int32(MSG_DONTWAIT))
        }
        if count > 0 { return .bytes(Array(buffer[..<count])) }
        if count == 0 { return .end }
        let isEmpty = [.resourceTemporarilyUnavailable, .interrupted].contains(currentErrno())
        return isEmpty ? .nothing : .failed
    }
}
