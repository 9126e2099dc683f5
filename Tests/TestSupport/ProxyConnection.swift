// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
internal import LinuxIO
internal import SystemPackage

/// One connection through a proxy; only the proxy's thread knows it.
final class ProxyConnection {
    /// Bytes that are read at once; much less costs throughput.
    static let readSize = 1 << 20

    /// For so long after an end in order, what still comes is read and dropped: a socket that is
    /// closed with unread bytes sends a reset, which may overtake the last bytes that it sent.
    private static let lingering = Duration.milliseconds(200)

    /// The time between two looks at what the rate permits.
    private static let pace = Duration.milliseconds(1)

    private enum Phase {
        /// The server hears of the connection when the delay is over.
        case new
        case connecting
        case open
        /// The server could not be reached; the proxy may still have answers of its own.
        case alone
        case lingering(until: ContinuousClock.Instant)
        case closed
    }

    var isClientReady = false
    var isServerReady = false

    private let shared: ProxyState
    /// How many connections the proxy took before.
    private let number: Int
    private let queueLimit: Int
    private let accepted = ContinuousClock.now
    private var phase = Phase.new
    private var client: OwnedDescriptor?
    private var server: OwnedDescriptor?
    private var toServer = ProxyHalf(.toServer)
    private var toClient = ProxyHalf(.toClient)
    private var scanner = RequestScanner()
    private var cut = ProxyCut()
    /// The answer to the requests that are kept from the server.
    private var answers = NetworkFaults.Answers(status: 503, count: 0)

    init(
        _ client: consuming OwnedDescriptor, _ shared: ProxyState, number: Int, queueLimit: Int
    ) {
        self.client = consume client
        self.shared = shared
        self.number = number
        self.queueLimit = queueLimit
    }

    var isClosed: Bool { if case .closed = phase { true } else { false } }

    /// Whether nothing is delivered any more.
    private var isEnding: Bool {
        switch phase {
        case .lingering, .closed: true
        default: false
        }
    }

    var clientDescriptor: Int32? { client?.rawValue }
    var serverDescriptor: Int32? { server?.rawValue }

    /// What to wait for: poll(2)'s events of both sockets, and how long at most.
    func needs(
        _ faults: NetworkFaults, _ now: ContinuousClock.Instant
    ) -> (client: Int32, server: Int32, pause: Duration?) {
        if case .lingering(let end) = phase {
            return (
                toServer.hasEnded ? 0 : POLLIN, toClient.hasEnded ? 0 : POLLIN, end - now
            )
        }
        if number < faults.firstKnown { return (0, 0, nil) }
        var (client, server): (Int32, Int32) = (0, 0)
        if !toServer.hasEnded && toServer.lane.byteCount < queueLimit { client |= POLLIN }
        if toClient.isBlocked && !faults.isStalled { client |= POLLOUT }
        switch phase {
        case .connecting: server = POLLOUT
        case .open:
            if !toClient.hasEnded && toClient.lane.byteCount < queueLimit { server |= POLLIN }
            if toServer.isBlocked && !faults.isStalled { server |= POLLOUT }
        default: break
        }
        return (client, server, faults.isStalled ? nil : pause(faults, now))
    }

    private func pause(_ faults: NetworkFaults, _ now: ContinuousClock.Instant) -> Duration? {
        var due: [ContinuousClock.Instant] = []
        if case .new = phase { due.append(accepted) }
        if !toClient.isBlocked, let sent = toClient.lane.nextSent { due.append(sent) }
        if canSendToServer, !toServer.isBlocked, let sent = toServer.lane.nextSent {
            due.append(sent)
        }
        let wait = due.min().map { $0 + .seconds(faults.delay) - now }
        // What is due waits for its allowance.
        return faults.bytesPerSecond == nil ? wait : wait.map { max($0, Self.pace) }
    }

    /// Whether bytes for the server can go, or break the connection.
    private var canSendToServer: Bool {
        switch phase {
        case .open, .alone: true
        default: false
        }
    }

    /// Does all that can be done without waiting.
    func advance(_ now: ContinuousClock.Instant, _ buffer: inout [UInt8]) {
        if case .lingering(let end) = phase {
            linger(until: end, now, &buffer)
            return
        }
        let faults = shared.withLock { $0.faults }
        if number < faults.firstKnown { return }
        connect(faults, now)
        if isClientReady, !toServer.hasEnded, toServer.lane.byteCount < queueLimit {
            receiveFromClient(&buffer)
        }
        if case .open = phase, isServerReady, !toClient.hasEnded,
            toClient.lane.byteCount < queueLimit
        {
            receiveFromServer(&buffer)
        }
        // Bytes that were just read are newer than `now`.
        let arrival = ContinuousClock.now - .seconds(faults.delay)
        if canSendToServer { deliver(\.toServer, sentBefore: arrival) }
        if !isEnding { deliver(\.toClient, sentBefore: arrival) }
        if !isEnding && toServer.isDelivered && toClient.isDelivered { close() }
    }
}

// MARK: Connecting and ending

extension ProxyConnection {
    private func connect(_ faults: NetworkFaults, _ now: ContinuousClock.Instant) {
        switch phase {
        case .new where !faults.isStalled && now >= accepted + .seconds(faults.delay):
            guard let socket = try? Loopback.connect(port: faults.upstreamPort, isBlocking: false)
            else {
                beAlone(faults)
                return
            }
            server = consume socket
            phase = .connecting
            isServerReady = false
        case .connecting where isServerReady:
            if server.isFailed { beAlone(faults) } else { phase = .open }
        default: break
        }
    }

    private func beAlone(_ faults: NetworkFaults) {
        server = nil
        phase = .alone
        if (faults.answers?.count ?? 0) <= 0 { reset() }
    }

    /// Ends both sides with a reset.
    private func reset() {
        client.resetOnClose()
        server.resetOnClose()
        close()
    }

    private func close() {
        client = nil
        server = nil
        phase = .closed
    }

    /// Ends both sides in order.
    private func finish() {
        for descriptor in [client?.rawValue, server?.rawValue] {
            if let descriptor { shutdown(descriptor, Int32(SHUT_WR)) }
        }
        (toServer.hasEnded, toClient.hasEnded) = (client == nil, server == nil)
        phase = .lingering(until: ContinuousClock.now + Self.lingering)
    }

    private func linger(
        until end: ContinuousClock.Instant, _ now: ContinuousClock.Instant, _ buffer: inout [UInt8]
    ) {
        if isClientReady, !toServer.hasEnded {
            if case .bytes = client.receive(&buffer) {} else { toServer.hasEnded = true }
        }
        if isServerReady, !toClient.hasEnded {
            if case .bytes = server.receive(&buffer) {} else { toClient.hasEnded = true }
        }
        if now >= end || (toServer.hasEnded && toClient.hasEnded) { close() }
    }
}

// MARK: Receiving

extension ProxyConnection {
    private func receiveFromClient(_ buffer: inout [UInt8]) {
        let now = ContinuousClock.now
        switch client.receive(&buffer) {
        case .bytes(let bytes):
            for step in scanner.scan(bytes, isKept: isKept) { take(step, now) }
        case .nothing: break
        case .end:
            toServer.lane.append(.bytes(scanner.takeHeld()[...]), sent: now)
            toServer.lane.append(.end, sent: now)
            toServer.hasEnded = true
        case .failed:
            toServer.lane.append(.reset, sent: now)
            toServer.hasEnded = true
        }
    }

    private func receiveFromServer(_ buffer: inout [UInt8]) {
        let now = ContinuousClock.now
        switch server.receive(&buffer) {
        case .bytes(let bytes): append(bytes[...], to: &toClient, now)
        case .nothing: break
        case .end:
            toClient.lane.append(.end, sent: now)
            toClient.hasEnded = true
        case .failed:
            toClient.lane.append(.reset, sent: now)
            toClient.hasEnded = true
        }
    }

    private func isKept(_ head: RequestHead) -> Bool {
        shared.withLock { state in
            guard let answers = state.faults.answers, answers.count > 0 else {
                state.counters.requests += 1
                return false
            }
            self.answers = answers
            state.faults.answers?.count -= 1
            state.counters.answers += 1
            return true
        }
    }

    private func take(_ step: RequestScanner.Step, _ now: ContinuousClock.Instant) {
        // The way of an answer begins when the request would have arrived.
        let answered = now + .seconds(shared.withLock { $0.faults.delay })
        switch step {
        case .forward(let bytes): append(bytes, to: &toServer, now)
        case .askForBody:
            toClient.lane.append(
                .bytes(Array("HTTP/1.1 100 Continue\r\n\r\n".utf8)[...]), sent: answered)
        case .answer(let head):
            let answer = ProxyAnswer(answers, to: head)
            toClient.lane.append(.bytes(answer.bytes[...]), sent: answered)
            if answer.isLast {
                toClient.lane.append(.finish, sent: answered)
                toServer.hasEnded = true
            }
        }
    }

    private func append(
        _ bytes: ArraySlice<UInt8>, to half: inout ProxyHalf, _ now: ContinuousClock.Instant
    ) {
        var bytes = bytes
        let direction = half.direction
        if bytes.count > FaultProxy.shortestCorruptedRead {
            shared.withLock { state in
                guard state.faults.corruptions > 0, state.faults.corruptDirection == direction,
                    state.faults.corruptAfter < bytes.count
                else { return }
                state.faults.corruptions -= 1
                state.counters.corruptions += 1
                let offset = Int.random(
                    in: state.faults.corruptAfter..<bytes.count, using: &state.generator)
                let bit = Int.random(in: 0..<8, using: &state.generator)
                bytes[bytes.startIndex + offset] ^= 1 << UInt8(bit)
            }
        }
        half.lane.append(.bytes(bytes), sent: now)
    }
}

// MARK: Delivering

extension ProxyConnection {
    private func deliver(
        _ path: ReferenceWritableKeyPath<ProxyConnection, ProxyHalf>,
        sentBefore arrival: ContinuousClock.Instant
    ) {
        self[keyPath: path].isBlocked = false
        while let sent = self[keyPath: path].lane.nextSent, sent <= arrival,
            deliverNext(path)
        {}
    }

    /// - Returns: whether there may be more to deliver.
    private func deliverNext(
        _ path: ReferenceWritableKeyPath<ProxyConnection, ProxyHalf>
    ) -> Bool {
        if shared.withLock({ $0.faults.isStalled }) { return false }
        let direction = self[keyPath: path].direction
        switch self[keyPath: path].lane.next {
        case .bytes(let bytes): return deliver(bytes, path)
        case .end:
            let descriptor = direction == .toServer ? server?.rawValue : client?.rawValue
            if let descriptor { shutdown(descriptor, Int32(SHUT_WR)) }
            self[keyPath: path].lane.removeNext()
            self[keyPath: path].isDelivered = true
            // Without a server nobody else ends the other direction.
            if server == nil { toClient.lane.append(.end, sent: accepted) }
            return false
        case .reset:
            reset()
            return false
        case .finish:
            finish()
            return false
        case nil: return false
        }
    }

    private func deliver(
        _ bytes: ArraySlice<UInt8>, _ path: ReferenceWritableKeyPath<ProxyConnection, ProxyHalf>
    ) -> Bool {
        let direction = self[keyPath: path].direction
        let target = direction == .toServer ? server?.rawValue : client?.rawValue
        let result = shared.withLock { state in
            cut.send(bytes, to: target, direction, &state)
        }
        switch result {
        case .sent(let count):
            self[keyPath: path].lane.removeNext(byteCount: count)
            return true
        case .blocked:
            self[keyPath: path].isBlocked = true
            return false
        case .paced, .stalled: return false
        case .cut(isReset: false):
            finish()
            return false
        case .cut(isReset: true), .failed:
            reset()
            return false
        }
    }
}
