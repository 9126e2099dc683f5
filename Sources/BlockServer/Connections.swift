// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import NIOCore
internal import NIOHTTP1
internal import NIOPosix
internal import NIOSSL
internal import Synchronization
internal import WireProtocol

/// How a connection is set up, however it came about.
struct ConnectionSetup: Sendable {
    let shared: ConnectionContext
    let connections: Connections
    /// Connections that there may be at once.
    let limit: Int

    /// Has a channel answer requests.
    ///
    /// - Parameters:
    ///   - channel: a new one, on its event loop.
    ///   - identity: what is shown in TLS; `nil` for none of it.
    ///   - peer: what the log calls its client; `nil` for its address.
    /// - Returns: when that is done.
    func prepare(
        _ channel: any Channel, identity: ServerIdentity? = nil, peer: String? = nil
    ) -> EventLoopFuture<Void> {
        channel.eventLoop.makeCompletedFuture {
            let pipeline = channel.pipeline.syncOperations
            if let identity {
                try pipeline.addHandlers(
                    PlainTextDetector(), NIOSSLServerHandler(context: identity.context))
            }
            guard connections.add(channel, limit: limit) else {
                return try pipeline.addHandler(Rejecter())
            }
            try pipeline.configureHTTPServerPipeline(
                withPipeliningAssistance: true, withErrorHandling: false)
            try pipeline.addHandler(
                RequestHandler(
                    shared, asksForCertificate: identity?.asksForCertificates ?? false,
                    peer: peer))
        }
    }

    /// A little at first: most requests are small.
    static var allocator: AdaptiveRecvByteBufferAllocator {
        AdaptiveRecvByteBufferAllocator(minimum: 1 << 10, initial: 16 << 10, maximum: 512 << 10)
    }
}

/// The connections that there are.
final class Connections: Sendable {
    private let channels = Mutex<[ObjectIdentifier: any Channel]>([:])

    var count: Int { channels.withLock { $0.count } }

    /// Adds one for as long as it is open; `false` when there are enough.
    func add(_ channel: any Channel, limit: Int) -> Bool {
        let id = ObjectIdentifier(channel)
        let isAdded = channels.withLock { channels in
            guard channels.count < limit else { return false }
            channels[id] = channel
            return true
        }
        if isAdded {
            channel.closeFuture.whenComplete { [self] _ in
                channels.withLock { $0[id] = nil }
            }
        }
        return isAdded
    }

    /// Has each end after the request that it has in work.
    func endAll() {
        for channel in channels.withLock({ Array($0.values) }) {
            channel.pipeline.fireUserInboundEventTriggered(ServerEnds())
        }
    }
}

/// Answers a connection beyond the limit, whatever it asks.
private final class Rejecter: ChannelInboundHandler, Sendable {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    func channelActive(context: ChannelHandlerContext) {
        let problem = Problem(
            .busy, status: 503, "The server has no connection to spare",
            detail: "the server has too many connections")
        let bound = NIOLoopBound(context, eventLoop: context.eventLoop)
        context.writeAndFlush(wrapOutboundOut(plainAnswer(problem))).whenComplete { _ in
            bound.value.close(promise: nil)
        }
    }
}
