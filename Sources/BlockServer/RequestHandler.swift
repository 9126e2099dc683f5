// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import LinuxIO
internal import NIOCore
internal import NIOHTTP1
internal import WireProtocol

/// What all connections of a server share.
struct ConnectionContext: Sendable {
    let service: Service
    let queue: WorkQueue
    let budget: MemoryBudget
    let bodies: BodyPool
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

    private enum State {
        case idle
        /// Waits for memory, or for the rest of the body.
        case receiving(Incoming)
        case answering
        /// Reads what still comes, so that the client reads the answer before the end.
        case lingering(left: Int)
    }

    private struct Incoming {
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
        var dropped = 0
    }

    private let shared: ConnectionContext
    private var state = State.idle
    private var keepsAlive = true
    private var isEnding = false
    private var isInputClosed = false
    /// The next request, which NIO hands out while the end of the answer before it is written.
    private var next: [HTTPServerRequestPart] = []
    private var timer: Scheduled<Void>?
    private var peer = "?"

    /// Bytes of the table and the digest of an answer to a read request.
    private static let tableCost = 256 << 10
    /// Bodies of rejected requests up to this are read, so that the connection can go on.
    private static let droppable = 64 << 10
    private static let lingerBytes = 8 << 20

    init(_ shared: ConnectionContext) { self.shared = shared }

    func channelActive(context: ChannelHandlerContext) {
        peer =
            context.remoteAddress.map { address in
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

    private func take(_ part: HTTPServerRequestPart, _ context: ChannelHandlerContext) {
        switch part {
        case .head(let head): begin(head, context)
        case .body(let part): receive(part, context)
        case .end: complete(context)
        }
    }
}

extension RequestHandler {
    /// Waits for the next request.
    private func rest(_ context: ChannelHandlerContext) {
        state = .idle
        arm(shared.idleTime, context) { $0.context.close(promise: nil) }
    }

    private func arm(
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
        let route = Route(head.uri)
        let length = contentLength(of: head)
        var incoming = Incoming(head: head, route: route, cost: 0)
        incoming.rejection = reject(head, route, length)
        let size = length ?? 0
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
        incoming.cost = shared.bodies.cost(size) + answerCost(route, size)
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

    /// Bytes that an answer may take.
    ///
    /// - Parameters:
    ///   - route: what is asked.
    ///   - size: of the request's body.
    /// - Returns: 0 for small answers: who is only asked how it goes must not wait for those who do
    ///   not read what they asked for.
    private func answerCost(_ route: Route?, _ size: Int) -> Int {
        switch route {
        case .read: Limits.payload + Self.tableCost
        // For a region's digest at most 128 of blocks come back, with marks and index; a map has
        // 16 KiB.
        case .compare: max(32 << 10, min(150 * size, Limits.blocks * 64 + Self.tableCost))
        case .content: Self.contentStep
        default: 0
        }
    }

    /// Bytes of a device's content that are sent in one go.
    static let contentStep = 1 << 20

    private func contentLength(of head: HTTPRequestHead) -> Int? {
        if head.headers.contains(name: "Transfer-Encoding") { return nil }
        let values = head.headers["Content-Length"]
        guard let first = values.first else { return 0 }
        guard values.count == 1, let length = Int(first), length >= 0 else { return nil }
        return length
    }

    /// What speaks against a request, going by its head alone.
    private func reject(_ head: HTTPRequestHead, _ route: Route?, _ length: Int?) -> Response? {
        let headerBytes = head.headers.reduce(head.uri.utf8.count) {
            $0 + $1.name.utf8.count + $1.value.utf8.count + 4
        }
        if headerBytes > 16 << 10 || head.headers.count > 100 {
            return Response(
                Problem(
                    .tooLarge, status: 431, "The header is too large",
                    detail: "the header has more than 16 KiB or 100 lines"))
        }
        guard let route else {
            return Response(
                Problem(
                    .notFound, status: 404, "There is nothing here",
                    detail: "the server has no such path"))
        }
        guard route.methods.contains(head.method.rawValue) else {
            var response = Response(
                Problem(
                    .method, status: 405, "The method is not allowed",
                    detail: "allowed are \(route.methods.joined(separator: ", "))"))
            response.headers.add(name: "Allow", value: route.methods.joined(separator: ", "))
            return response
        }
        guard let length else {
            return Response(
                Problem(
                    .lengthRequired, status: 411, "A length is required",
                    detail: "one Content-Length is required, and no Transfer-Encoding"))
        }
        let limit = bodyLimit(route)
        if length > limit {
            return Response(
                Problem(
                    .tooLarge, status: 413, "The body is too large",
                    detail: "a body may have \(limit) bytes here, and not \(length)"))
        }
        if let wanted = mediaType(route) {
            let given = head.headers["Content-Type"].first ?? ""
            let bare = given.split(separator: ";").first.map(String.init) ?? ""
            guard bare.lowercased() == wanted else {
                return Response(
                    Problem(
                        .mediaType, status: 415, "The content type is not supported",
                        detail: "it must be \(wanted)"))
            }
        }
        return nil
    }

    private func bodyLimit(_ route: Route) -> Int {
        switch route {
        case .sessions, .commit: Limits.json
        case .compare: CompareRequest.headerSize + (Limits.blocks + 1) * Limits.digest
        case .read: ExtentFrame.tableSize(count: Limits.extents) + Limits.digest
        case .write: Limits.body
        case .info, .devices, .device, .content, .session: 0
        }
    }

    private func mediaType(_ route: Route) -> String? {
        switch route {
        case .sessions, .commit: MediaType.json
        case .compare, .read, .write: MediaType.frames
        case .info, .devices, .device, .content, .session: nil
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
        timer?.cancel()
        guard incoming.rejection == nil, let route = incoming.route else {
            answerRejection(context)
            return
        }
        state = .answering
        let request = Request(
            route: route, method: incoming.head.method, headers: incoming.head.headers,
            body: incoming.body, peer: peer)
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
        guard case .receiving(let incoming) = state, let response = incoming.rejection else {
            return
        }
        timer?.cancel()
        if let body = incoming.body { shared.bodies.give(body) }
        state = .answering
        send(
            response, isHead: incoming.head.method == .HEAD,
            cost: incoming.isGranted ? incoming.cost : 0, context)
    }
}

extension RequestHandler {
    /// Sends an answer; what of the budget the request has is given back when it is sent.
    private func send(
        _ response: Response, isHead: Bool, cost: Int, _ context: ChannelHandlerContext
    ) {
        guard context.channel.isActive else {
            shared.budget.give(cost)
            return
        }
        var head = HTTPResponseHead(version: .http1_1, status: response.status)
        head.headers = response.headers
        let length: Int
        switch response.body {
        case .bytes(let bytes): length = bytes.readableBytes
        case .content(_, let range): length = range.length
        }
        if response.status != .noContent {
            head.headers.add(name: "Content-Length", value: "\(length)")
        }
        if !keepsAlive || isEnding {
            keepsAlive = false
            head.headers.add(name: "Connection", value: "close")
        }
        armForAnswer(context)
        context.write(wrapOutboundOut(.head(head)), promise: nil)
        switch response.body {
        case .bytes(let bytes):
            if !isHead && bytes.readableBytes > 0 {
                context.write(wrapOutboundOut(.body(.byteBuffer(bytes))), promise: nil)
            }
            end(cost: cost, context)
        case .content(let content, let range):
            if isHead {
                end(cost: cost, context)
            } else {
                stream(content, range, cost: cost, context)
            }
        }
    }

    /// A client that reads nothing of its answer is not waited for; one that is slow is.
    private func armForAnswer(_ context: ChannelHandlerContext, unsent: Int = .max) {
        arm(shared.patience, context) { handler, context in
            guard case .answering = handler.state else { return }
            let left = handler.unsent(context)
            if left > 0 && left == unsent {
                context.close(promise: nil)
            } else {
                handler.armForAnswer(context, unsent: left)
            }
        }
    }

    /// Bytes of the answer that the kernel has not taken yet.
    private func unsent(_ context: ChannelHandlerContext) -> Int {
        (try? context.channel.syncOptions?.getOption(.bufferedWritableBytes)) ?? 0
    }

    /// Sends a device's content, one piece after the other as the client takes them.
    private func stream(
        _ content: OpenedContent, _ range: ByteRange, cost: Int, _ context: ChannelHandlerContext
    ) {
        guard !range.isEmpty, context.channel.isActive else {
            end(cost: cost, context)
            return
        }
        let piece = ByteRange(
            range.offset, to: min(range.offset + Self.contentStep, range.end))
        let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
        let loop = context.eventLoop
        shared.queue.add { memory in
            let bytes: ByteBuffer?
            do throws(IOError) {
                bytes = ByteBuffer(bytes: try content.read(piece, memory))
            } catch {
                // The length was promised: all that is left is to break off.
                bytes = nil
            }
            loop.execute {
                let (handler, context) = bound.value
                handler.send(
                    bytes, rest: ByteRange(piece.end, to: range.end), of: content, cost: cost,
                    context)
            }
        }
    }

    private func send(
        _ bytes: ByteBuffer?, rest: ByteRange, of content: OpenedContent, cost: Int,
        _ context: ChannelHandlerContext
    ) {
        guard let bytes, context.channel.isActive else {
            shared.budget.give(cost)
            context.close(promise: nil)
            return
        }
        armForAnswer(context)
        let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
        context.writeAndFlush(wrapOutboundOut(.body(.byteBuffer(bytes)))).whenComplete { _ in
            let (handler, context) = bound.value
            handler.stream(content, rest, cost: cost, context)
        }
    }

    private func end(cost: Int, _ context: ChannelHandlerContext) {
        let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
        let budget = shared.budget
        context.writeAndFlush(wrapOutboundOut(.end(nil))).whenComplete { _ in
            budget.give(cost)
            let (handler, context) = bound.value
            handler.sent(context)
        }
    }

    private func sent(_ context: ChannelHandlerContext) {
        guard context.channel.isActive, case .answering = state else { return }
        guard !keepsAlive || isEnding else {
            rest(context)
            let parts = next
            next = []
            for part in parts { take(part, context) }
            if parts.isEmpty && isInputClosed {
                context.close(promise: nil)
            } else {
                context.read()
            }
            return
        }
        // A close while the client still sends would take the answer away from it.
        state = .lingering(left: Self.lingerBytes)
        context.close(mode: .output, promise: nil)
        arm(.seconds(2), context) { $0.context.close(promise: nil) }
        context.read()
    }
}
