// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import LinuxIO
internal import Logging
internal import NIOCore
internal import NIOHTTP1
internal import NIOSSL
internal import NIOTLS
internal import Synchronization
internal import WireProtocol

/// State that all connections of a server share.
struct ConnectionContext: Sendable {
    let service: Service
    let queue: WorkQueue
    let budget: MemoryBudget
    let bodies: BodyPool
    let access: AccessTable
    let throttle: AuthThrottle
    let connections: Connections
    let logger: Logger
    let events: BoundedLog
    let counts: ServerCounts
    /// The values of `Host` that a server without tokens accepts.
    var hosts: BrowserRules.Hosts
    /// How long a client may be silent in the middle of a request or response.
    let patience: TimeAmount
    /// How long a connection may be idle between requests.
    let idleTime: TimeAmount
}

/// Sent to all connections when the server ends.
struct ServerEnds: Sendable {
    /// Whether the time for requests in work is over.
    var isLate = false
}

/// Sent to all connections when tokens, exports or the authority of certificates have changed, and
/// each second, since tokens and certificates expire.
struct RightsChange: Sendable {
    var isOfAuthority: Bool
}

/// Handles one connection, one request at a time.
///
/// The handler checks a request before it takes memory for it. A thread of the queue answers it.
final class RequestHandler: ChannelInboundHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundOut = HTTPServerResponsePart

    enum State {
        case idle
        /// Waits for memory, or for the rest of the body.
        case receiving(Incoming)
        case answering
        /// Reads and drops further input, so that the client can read the response before the
        /// close.
        case lingering(left: Int)
    }

    struct Incoming {
        var head: HTTPRequestHead
        var route: (any ServedRoute)?
        /// The response that does not depend on the body.
        var rejection: Response?
        var body: RequestBody?
        /// Parts received before there was memory for them.
        var early: [ByteBuffer] = []
        var isGranted = false
        var isComplete = false
        /// Bytes of the whole body (`Content-Length`).
        var length = 0
        /// Bytes of the body that are already written, if it comes in pieces.
        var before = 0
        var isStoring = false
        /// Whether further parts must wait.
        var isHeld: Bool { !isGranted || isStoring }
        var cost: Int
        var grant = Grant.everything
        var isPunished = false
    }

    let shared: ConnectionContext
    var state = State.idle
    var keepsAlive = true
    /// HTTP/1.0 has no chunks.
    var takesChunks = true
    var isEnding = false
    /// The next request, which NIO delivers while the handler still writes the end of a response.
    var next: [HTTPServerRequestPart] = []
    var timer: Scheduled<Void>?
    /// Bytes of the body received since the timer was set.
    var progress = 0
    /// The owner of the request's memory; see `MemoryBudget`.
    var account: String?
    /// Bytes that one read of a body with memory may bring.
    private let largestRead: Int
    /// Bytes that the next read may bring; see `ReadAllocator`.
    private var readSize = ReadAllocator.least
    private let name: String?
    let user: UInt32?
    private(set) var peer = "?"
    var asked: HTTPRequestHead?
    private(set) var address = "local"
    let asksForCertificate: Bool
    private(set) var certified: String?
    /// Seconds since 1970 after which the client's certificate is invalid.
    private(set) var certificateEnd: Int?
    /// What allows the response that is being streamed.
    var streamed: Permission?
    /// The name of the request's token or certificate.
    var client: String?
    /// Digest of the last valid token: showing it again is not a guess.
    var knownCredential: [UInt8]?
    /// The device that the request works on; see `WorkQueue`.
    var subject: String?
    /// NIO reads nothing after a request with `Upgrade` or CONNECT.
    var isUpgrade = false
    /// Tells jobs of the queue whether their question still needs an answer.
    let life = Life()

    final class Life: Sendable {
        let isClosed = Atomic(false)
        /// Whether the client has ended its side of the connection.
        let isInputClosed = Atomic(false)
        let isEnding = Atomic(false)

        /// Why no session for writing is opened any more; `nil` if one may be.
        ///
        /// A killed client looks like one that only ends its side, and a session needs more
        /// requests.
        var reasonToGiveUp: Problem? {
            if isEnding.load(ordering: .relaxed) { return SessionTable.closing }
            let isGone = isClosed.load(ordering: .relaxed) || isInputClosed.load(ordering: .relaxed)
            return isGone ? SessionTable.clientHasGone : nil
        }

        /// The response to a question in place of its answer; `nil` if it still needs the answer.
        func rejection(isOfSession: Bool) -> Response? {
            if isClosed.load(ordering: .relaxed) { return RequestRules.tooSlow }
            // A session may still have a request in work whose client asks about it.
            if isOfSession || !isEnding.load(ordering: .relaxed) { return nil }
            return Response(SessionTable.closing)
        }
    }

    static let lingerBytes = 8 << 20

    init(
        _ shared: ConnectionContext, asksForCertificate: Bool = false, largestRead: Int,
        peer: String? = nil, user: UInt32? = nil
    ) {
        self.shared = shared
        self.largestRead = largestRead
        self.asksForCertificate = asksForCertificate
        name = peer
        self.user = user
    }

    func channelActive(context: ChannelHandlerContext) {
        // On a unix socket each user counts as an address.
        address = context.remoteAddress?.ipAddress ?? user.map { "uid:\($0)" } ?? "local"
        peer =
            name
            ?? context.remoteAddress.map { address in
                address.ipAddress.map { ip in address.port.map { "\(ip):\($0)" } ?? ip }
                    ?? self.address
            } ?? self.address
        rest(context)
        context.read()
    }

    func channelInactive(context: ChannelHandlerContext) {
        timer?.cancel()
        _ = shared.connections.count(ObjectIdentifier(self), for: nil)
        // The thread that is still writing a piece gives its memory back.
        if case .receiving(let incoming) = state, !incoming.isHeld {
            shared.budget.give(incoming.cost, of: account)
            if let body = incoming.body { shared.bodies.give(body) }
        }
        state = .lingering(left: 0)
        life.isClosed.store(true, ordering: .relaxed)
        shared.budget.forget(ObjectIdentifier(self))
        context.fireChannelInactive()
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        fitRead(context)
        if wantsMore { context.read() }
        context.fireChannelReadComplete()
    }

    /// Limits the next read to the bytes that a body with memory lacks, and otherwise to few bytes,
    /// since those may have to wait.
    ///
    /// Large reads end with the body. Otherwise the next request could begin in a large buffer, and
    /// keep it while it waits for memory.
    func fitRead(_ context: ChannelHandlerContext) {
        var size = ReadAllocator.least
        if case .receiving(let incoming) = state, !incoming.isHeld, incoming.rejection == nil,
            let body = incoming.body
        {
            let missing = min(body.room, incoming.length - incoming.before - body.count)
            size = max(size, min(missing, largestRead))
        }
        guard size != readSize else { return }
        readSize = size
        _ = try? context.channel.syncOptions?.setOption(
            .recvAllocator, value: ReadAllocator(size: size))
    }

    private var wantsMore: Bool {
        switch state {
        case .idle, .lingering: true
        case .receiving(let incoming): !incoming.isHeld || incoming.early.isEmpty
        case .answering: false
        }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if let end = event as? ServerEnds {
            isEnding = true
            life.isEnding.store(true, ordering: .relaxed)
            if case .idle = state { context.close(promise: nil) }
            if end.isLate { context.close(promise: nil) }
        } else if let event = event as? ChannelEvent, event == .inputClosed {
            inputClosed(context)
        } else if asksForCertificate, case .handshakeCompleted? = event as? TLSUserEvent {
            let certificate = try? context.pipeline.syncOperations.nioSSL_peerCertificate()
            certified = certificate.flatMap { $0 }.flatMap(clientName)
            certificateEnd = certificate.flatMap { $0 }.map { Int($0.notValidAfter) }
        } else if let change = event as? RightsChange {
            rightsChanged(change, context)
        } else {
            context.fireUserInboundEventTriggered(event)
        }
    }

    /// The client sends nothing more, but may still read its response.
    private func inputClosed(_ context: ChannelHandlerContext) {
        life.isInputClosed.store(true, ordering: .relaxed)
        switch state {
        case .answering: break
        case .receiving(let incoming) where incoming.isComplete: break
        case .idle, .receiving, .lingering: context.close(promise: nil)
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        if case .dataReceivedInErrorState(_, let rest)? = error as? ByteToMessageDecoderError {
            // Closing at once would discard the response to what was malformed or too large.
            if case .lingering = state { receive(rest, context) }
            return
        }
        let parserError = error as? HTTPParserError
        if case .answering = state, parserError != nil {
            // The following bytes are no request; the server still answers the one before them.
            keepsAlive = false
            return
        }
        guard case .idle = state, let parserError else {
            context.close(promise: nil)
            return
        }
        let problem: Problem
        if parserError == .headerOverflow {
            problem = Problem(
                .tooLarge, status: 431, "The header is too large", detail: "the header is too large"
            )
        } else {
            problem = Problem(
                .malformed, status: 400, "The request is malformed", detail: "it is not HTTP/1.1")
        }
        keepsAlive = false
        state = .answering
        send(Response(problem), isHead: false, cost: 0, context)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let part = unwrapInboundIn(data)
        guard case .answering = state else { return take(part, context) }
        // Nothing follows the last response, and the rest of a rejected body needs no memory.
        if keepsAlive { next.append(part) }
    }

    func take(_ part: HTTPServerRequestPart, _ context: ChannelHandlerContext) {
        switch part {
        case .head(let head): begin(head, context)
        case .body(let part): receive(part, context)
        case .end: complete(context)
        }
    }
}

extension RequestHandler {
    func rest(_ context: ChannelHandlerContext) {
        state = .idle
        arm(shared.idleTime, context) { $0.context.close(promise: nil) }
    }

    func arm(
        _ time: TimeAmount, _ context: ChannelHandlerContext,
        _ body: @escaping ((handler: RequestHandler, context: ChannelHandlerContext)) -> Void
    ) {
        timer?.cancel()
        let bound = NIOLoopBound((handler: self, context: context), eventLoop: context.eventLoop)
        let action = NIOLoopBound(body, eventLoop: context.eventLoop)
        timer = context.eventLoop.scheduleTask(in: time) { action.value(bound.value) }
    }
}
