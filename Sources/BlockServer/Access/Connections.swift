// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
internal import LinuxIO
internal import NIOCore
internal import NIOHTTP1
internal import NIOPosix
internal import NIOSSL
internal import WireProtocol

/// Sets up connections from TCP, unix sockets and standard streams.
struct ConnectionSetup: Sendable {
    var shared: ConnectionContext
    let connections: Connections
    let limit: Int
    let limitOfAddress: Int
    let handshakeTime: TimeAmount

    /// Adds the handlers to a new channel; runs on its event loop.
    ///
    /// - Parameters:
    ///   - peer: the client's name in the log; `nil` for its address.
    ///   - user: of the client's process, on a unix socket.
    func prepare(
        _ channel: any Channel, identity: ServerIdentity? = nil, peer: String? = nil,
        user: UInt32? = nil
    ) -> EventLoopFuture<Void> {
        channel.eventLoop.makeCompletedFuture {
            let pipeline = channel.pipeline.syncOperations
            guard
                connections.add(
                    channel, user: user, limit: limit, limitOfAddress: limitOfAddress)
            else {
                return try pipeline.addHandler(Rejecter(isTLS: identity != nil))
            }
            if let identity {
                try pipeline.addHandlers(
                    PlainTextDetector(), NIOSSLServerHandler(context: identity.context),
                    HandshakeDeadline(after: handshakeTime))
            }
            try pipeline.addHandler(UnaskedInputLimit())
            try pipeline.configureHTTPServerPipeline(
                withPipeliningAssistance: true, withErrorHandling: false,
                withEncoderConfiguration: HTTPResponseEncoder.Configuration(),
                withDecoderLimitConfiguration: Self.headerLimits)
            try pipeline.addHandler(
                RequestHandler(
                    shared, asksForCertificate: identity?.asksForCertificates ?? false,
                    largestRead: identity == nil ? ReadAllocator.most : ReadAllocator.mostOfTLS,
                    peer: peer, user: user))
        }
    }

    /// Does the same for a unix socket, with the user of the client's process.
    func prepareLocal(
        _ channel: any Channel, identity: ServerIdentity?
    ) -> EventLoopFuture<Void> {
        guard let options = channel as? any SocketOptionProvider else {
            return prepare(channel, identity: identity)
        }
        let credentials: EventLoopFuture<PeerCredentials> = options.unsafeGetSocketOption(
            level: .socket, name: PeerCredentials.option)
        return credentials.flatMap { prepare(channel, identity: identity, user: $0.user) }
    }

    /// What the parser keeps of a header that is not complete.
    ///
    /// The server rejects smaller ones (`RequestRules.reject`), after it has read them.
    private static var headerLimits: NIOHTTPDecoderLimitConfiguration {
        var limits = NIOHTTPDecoderLimitConfiguration()
        limits.maxHeaderFieldSize = 32 << 10
        limits.maxHeaderListSize = 32 << 10
        return limits
    }
}

/// Credentials of the process that connected to a unix socket: `struct ucred` of unix(7).
private struct PeerCredentials: Sendable {
    var process: Int32
    var user: UInt32
    var group: UInt32

    static let option = NIOBSDSocket.Option(rawValue: SO_PEERCRED)
}

/// The open connections, counted by address (on a unix socket by user) and by client.
final class Connections: Sendable {
    private struct State {
        var channels: [ObjectIdentifier: any Channel] = [:]
        var addresses: [String: Int] = [:]
        /// The client of each connection, by its handler.
        var clients: [ObjectIdentifier: String] = [:]
        var counts: [String: Int] = [:]
    }
    private let state = Guarded(State())
    private let limitOfClient: Int

    init(limitOfClient: Int = .max) { self.limitOfClient = limitOfClient }

    var count: Int { state.withLock { $0.channels.count } }

    func waitUntilAllHaveClosed(until deadline: ContinuousClock.Instant) {
        _ = state.wait(until: deadline) { $0.channels.isEmpty ? true : nil }
    }

    /// Adds a channel until it closes; `false` if a limit is reached.
    ///
    /// - Parameter user: of the client's process, on a unix socket, where it counts as an address.
    func add(_ channel: any Channel, user: UInt32?, limit: Int, limitOfAddress: Int) -> Bool {
        let id = ObjectIdentifier(channel)
        let address =
            user.map { "uid:\($0)" }
            ?? channel.remoteAddress?.ipAddress.map(AuthThrottle.network)
        let isAdded = state.withLock { state in
            guard state.channels.count < limit else { return false }
            if let address {
                guard state.addresses[address, default: 0] < limitOfAddress else { return false }
                state.addresses[address, default: 0] += 1
            }
            state.channels[id] = channel
            return true
        }
        if isAdded {
            channel.closeFuture.whenComplete { [self] _ in
                state.withLock { state in
                    state.channels[id] = nil
                    if let address { state.addresses.decrement(address) }
                }
            }
        }
        return isAdded
    }

    /// Counts a connection for a client, and no longer for its earlier client; `false` if the
    /// client has reached its limit.
    func count(_ handler: ObjectIdentifier, for client: String?) -> Bool {
        state.withLock { state in
            let before = state.clients[handler]
            if before == client { return true }
            if let client, state.counts[client, default: 0] >= limitOfClient { return false }
            if let before { state.counts.decrement(before) }
            if let client { state.counts[client, default: 0] += 1 }
            state.clients[handler] = client
            return true
        }
    }

    func endAll(isLate: Bool = false) { notifyAll(ServerEnds(isLate: isLate)) }

    /// Sends an event into the pipeline of every connection.
    func notifyAll(_ event: any Sendable) {
        for channel in state.withLock({ Array($0.channels.values) }) {
            channel.pipeline.fireUserInboundEventTriggered(event)
        }
    }
}

/// Answers any request on a connection beyond the limit with 503, and closes it.
private final class Rejecter: ChannelInboundHandler, Sendable {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private let isTLS: Bool

    init(isTLS: Bool) { self.isTLS = isTLS }

    func channelActive(context: ChannelHandlerContext) {
        // An answer would need a handshake, which costs more than most requests.
        guard !isTLS else { return context.close(promise: nil) }
        let problem = Problem(
            .busy, status: 503, "The server has too many connections",
            detail: "the server has too many connections")
        let bound = NIOLoopBound(context, eventLoop: context.eventLoop)
        context.writeAndFlush(wrapOutboundOut(plainAnswer(problem))).whenComplete { _ in
            bound.value.close(promise: nil)
        }
    }
}
