// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import LinuxIO
internal import Logging
internal import NIOCore
internal import NIOHTTP1
internal import NIOSSL
internal import NIOTLS
internal import WireProtocol

/// What all connections of a server share.
struct ConnectionContext: Sendable {
    let service: Service
    let queue: WorkQueue
    let budget: MemoryBudget
    let bodies: BodyPool
    let access: AccessTable
    let penalties: Penalties
    let logger: Logger
    /// How long a client may be silent in the middle of a request or of an answer.
    let patience: TimeAmount
    /// How long a connection may be idle between requests.
    let idleTime: TimeAmount
}

/// Told to all connections when the server ends.
struct ServerEnds: Sendable {}

/// One connection: takes requests one at a time, checks them before memory is taken for them, has
/// them answered on the queue's threads, and sends the answer.
final class RequestHandler: ChannelInboundHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundOut = HTTPServerResponsePart

    enum State {
        case idle
        /// Waits for memory, or for the rest of the body.
        case receiving(Incoming)
        case answering
        /// Reads what still comes, so that the client reads the answer before the end.
        case lingering(left: Int)
    }

    struct Incoming {
        var head: HTTPRequestHead
        var route: Route?
        /// What it will be answered with, whatever its body is.
        var rejection: Response?
        var body: RequestBody?
        /// What came before there was memory for it.
        var early: [ByteBuffer] = []
        var isGranted = false
        var isComplete = false
        /// Bytes of the budget.
        var cost: Int
        var grant = Grant.everything
        /// The rejection has to wait, whatever else comes.
        var isPunished = false
    }

    let shared: ConnectionContext
    var state = State.idle
    var keepsAlive = true
    /// HTTP/1.0 has no chunks.
    var takesChunks = true
    var isEnding = false
    var isInputClosed = false
    /// The next request, which NIO hands out while the end of the answer before it is written.
    var next: [HTTPServerRequestPart] = []
    private var timer: Scheduled<Void>?
    private let name: String?
    private(set) var peer = "?"
    /// The request that is worked on, or was last.
    private(set) var asked: HTTPRequestHead?
    /// The same without the port.
    private var address = "local"
    /// Whether the client has to show a certificate.
    private let asksForCertificate: Bool
    /// The name in the client's certificate.
    private var certified: String?

    /// Bodies of rejected requests up to this are read, so that the connection can go on.
    private static let droppable = 64 << 10
    static let lingerBytes = 8 << 20

    /// - Parameters:
    ///   - shared: what all connections share.
    ///   - asksForCertificate: whether the client has to show a certificate.
    ///   - peer: what the log calls the client; `nil` for its address.
    init(_ shared: ConnectionContext, asksForCertificate: Bool = false, peer: String? = nil) {
        self.shared = shared
        self.asksForCertificate = asksForCertificate
        name = peer
    }

    func channelActive(context: ChannelHandlerContext) {
        address = context.remoteAddress?.ipAddress ?? "local"
        peer =
            name
            ?? context.remoteAddress.map { address in
                address.ipAddress.map { ip in address.port.map { "\(ip):\($0)" } ?? ip } ?? "local"
            } ?? "local"
        rest(context)
        context.read()
    }

    func channelInactive(context: ChannelHandlerContext) {
        timer?.cancel()
        if case .receiving(let incoming) = state, incoming.isGranted {
            shared.budget.give(incoming.cost)
            if let body = incoming.body { shared.bodies.give(body) }
        }
        state = .lingering(left: 0)
        context.fireChannelInactive()
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        if wantsMore { context.read() }
        context.fireChannelReadComplete()
    }

    private var wantsMore: Bool {
        switch state {
        case .idle, .lingering: true
        case .receiving(let incoming): incoming.isGranted || incoming.early.isEmpty
        case .answering: false
        }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if event is ServerEnds {
            isEnding = true
            if case .idle = state { context.close(promise: nil) }
        } else if let event = event as? ChannelEvent, event == .inputClosed {
            inputClosed(context)
        } else if asksForCertificate, case .handshakeCompleted? = event as? TLSUserEvent {
            let certificate = try? context.pipeline.syncOperations.nioSSL_peerCertificate()
            certified = certificate.flatMap { $0 }.flatMap(clientName)
        } else {
            context.fireUserInboundEventTriggered(event)
        }
    }

    /// The client sends nothing more; it may still want to read its answer.
    private func inputClosed(_ context: ChannelHandlerContext) {
        switch state {
        case .answering: isInputClosed = true
        case .receiving(let incoming) where incoming.isComplete: isInputClosed = true
        case .idle, .receiving, .lingering: context.close(promise: nil)
        }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        let parserError = error as? HTTPParserError
        if case .answering = state, parserError != nil {
            // What follows is no request; the one before it is answered all the same.
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
        next.append(part)
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
    /// Waits for the next request.
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

    /// Looks at a head and takes memory for the request, or rejects it.
    private func begin(_ head: HTTPRequestHead, _ context: ChannelHandlerContext) {
        guard case .idle = state else { return }
        keepsAlive = head.isKeepAlive && !isEnding
        asked = head
        takesChunks = head.version != .http1_0
        let route = Route(head.uri)
        let length = RequestRules.contentLength(of: head)
        var incoming = Incoming(head: head, route: route, cost: 0)
        incoming.rejection = RequestRules.reject(head, route, length)
        let size = length ?? 0
        if asksForCertificate && certified == nil {
            incoming.rejection = RequestRules.unnamed
        } else {
            switch shared.access.judge(head.headers, certified: certified) {
            case .granted(let grant): incoming.grant = grant
            case .missing: incoming.rejection = RequestRules.unauthorized(certified)
            case .wrong: return punish(incoming, context)
            }
        }
        if incoming.rejection != nil {
            incoming.isGranted = true
            state = .receiving(incoming)
            if length == nil || size > Self.droppable || head.headers.contains(name: "Expect") {
                keepsAlive = false
                answerRejection(context)
            } else {
                armForBody(context)
            }
            return
        }
        incoming.cost = shared.bodies.cost(size) + RequestRules.answerCost(route, size)
        state = .receiving(incoming)
        armForBody(context)
        let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
        let (loop, cost, budget) = (context.eventLoop, incoming.cost, shared.budget)
        guard cost > 0 else {
            _ = granted(size, context)
            return
        }
        shared.budget.take(cost) {
            if loop.inEventLoop {
                let (handler, context) = bound.value
                if !handler.granted(size, context) { budget.give(cost) }
            } else {
                loop.execute {
                    let (handler, context) = bound.value
                    if !handler.granted(size, context) { budget.give(cost) }
                }
            }
        }
    }

    /// Has a client that showed a wrong token wait for its answer, which is the last one on this
    /// connection.
    private func punish(_ incoming: Incoming, _ context: ChannelHandlerContext) {
        var incoming = incoming
        let wait = shared.penalties.wait(of: address)
        shared.logger.warning(
            "wrong token",
            metadata: ["peer": "\(peer)", "wait": "\((wait / .milliseconds(1)).rounded() / 1000)"])
        incoming.rejection = RequestRules.wrongToken
        incoming.isGranted = true
        incoming.isPunished = true
        keepsAlive = false
        state = .receiving(incoming)
        arm(.milliseconds(Int64(wait / .milliseconds(1))), context) { handler, context in
            handler.answerRejection(context)
        }
    }

    /// A body that stays away is no reason to wait for ever.
    private func armForBody(_ context: ChannelHandlerContext) {
        arm(shared.patience, context) { handler, context in
            guard case .receiving(var incoming) = handler.state else { return }
            incoming.rejection = Response(
                Problem(
                    .timeout, status: 408, "The request took too long",
                    detail: "the rest of the request did not come"))
            handler.state = .receiving(incoming)
            handler.keepsAlive = false
            handler.answerRejection(context)
        }
    }

    /// There is memory for the request now; `false` when nobody needs it any more.
    private func granted(_ size: Int, _ context: ChannelHandlerContext) -> Bool {
        guard case .receiving(var incoming) = state, !incoming.isGranted else { return false }
        incoming.isGranted = true
        if size > 0 { incoming.body = shared.bodies.take(size) }
        let early = incoming.early
        incoming.early = []
        let isComplete = incoming.isComplete
        state = .receiving(incoming)
        if incoming.head.headers.first(name: "Expect")?.lowercased() == "100-continue" {
            context.writeAndFlush(
                wrapOutboundOut(
                    .head(HTTPResponseHead(version: .http1_1, status: .continue))), promise: nil)
        }
        for part in early { receive(part, context) }
        if isComplete { complete(context) } else if !early.isEmpty { context.read() }
        return true
    }

    private func receive(_ part: ByteBuffer, _ context: ChannelHandlerContext) {
        switch state {
        case .receiving(var incoming):
            guard incoming.isGranted else {
                incoming.early.append(part)
                state = .receiving(incoming)
                return
            }
            guard incoming.rejection == nil else { return }
            armForBody(context)
            if incoming.body?.append(part) != true { context.close(promise: nil) }
        case .lingering(let left):
            if left < part.readableBytes { context.close(promise: nil) }
            state = .lingering(left: left - part.readableBytes)
        case .idle, .answering: break
        }
    }

    /// The whole request is here.
    private func complete(_ context: ChannelHandlerContext) {
        guard case .receiving(var incoming) = state else { return }
        guard incoming.isGranted else {
            incoming.isComplete = true
            state = .receiving(incoming)
            return
        }
        if incoming.isPunished { return }
        timer?.cancel()
        guard incoming.rejection == nil, let route = incoming.route else {
            answerRejection(context)
            return
        }
        state = .answering
        let request = Request(
            route: route, method: incoming.head.method, headers: incoming.head.headers,
            body: incoming.body, peer: peer, address: address, grant: incoming.grant)
        let (shared, loop, cost) = (shared, context.eventLoop, incoming.cost)
        let bound = NIOLoopBound((self, context), eventLoop: loop)
        shared.queue.add { memory in
            let response = shared.service.respond(to: request, memory)
            if let body = request.body { shared.bodies.give(body) }
            loop.execute {
                let (handler, context) = bound.value
                handler.send(response, isHead: request.method == .HEAD, cost: cost, context)
            }
        }
    }

    private func answerRejection(_ context: ChannelHandlerContext) {
        guard case .receiving(let incoming) = state, var response = incoming.rejection else {
            return
        }
        if case .pdiffcopy = incoming.route { response.tellReasonInStatusLine() }
        timer?.cancel()
        if let body = incoming.body { shared.bodies.give(body) }
        state = .answering
        send(
            response, isHead: incoming.head.method == .HEAD,
            cost: incoming.isGranted ? incoming.cost : 0, context)
    }
}
