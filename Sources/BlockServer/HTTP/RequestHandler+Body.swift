// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import NIOCore
internal import NIOHTTP1
internal import Synchronization
internal import WireProtocol

extension RequestHandler {
    /// Ends a request whose body stops or is too slow, or that gets no memory in time.
    func armForBody(_ context: ChannelHandlerContext) {
        progress = 0
        arm(shared.patience, context) { handler, context in
            guard case .receiving(var incoming) = handler.state else { return }
            let least = RequestRules.leastProgress(in: handler.shared.patience)
            if incoming.isGranted && handler.progress >= least {
                return handler.armForBody(context)
            }
            incoming.rejection =
                incoming.isGranted ? RequestRules.tooSlow : RequestRules.noMemoryInTime
            handler.state = .receiving(incoming)
            handler.keepsAlive = false
            handler.answerRejection(context)
        }
    }

    /// Continues with the memory for the request; `false` if the request has ended.
    func granted(_ context: ChannelHandlerContext) -> Bool {
        guard case .receiving(var incoming) = state, !incoming.isGranted else { return false }
        incoming.isGranted = true
        if incoming.length > 0 {
            incoming.body = shared.bodies.take(incoming.length)
            if incoming.body == nil { incoming.rejection = Response(.noMemory) }
        }
        state = .receiving(incoming)
        if incoming.head.headers.first(name: "Expect")?.lowercased() == "100-continue" {
            context.writeAndFlush(
                wrapOutboundOut(
                    .head(HTTPResponseHead(version: .http1_1, status: .continue))), promise: nil)
        }
        armForBody(context)
        replay(context)
        return true
    }

    /// Processes the parts that arrived while the request was held.
    func replay(_ context: ChannelHandlerContext) {
        guard case .receiving(var incoming) = state else { return }
        let (early, isComplete) = (incoming.early, incoming.isComplete)
        incoming.early = []
        state = .receiving(incoming)
        for part in early { receive(part, context) }
        fitRead(context)
        if isComplete { complete(context) } else if !early.isEmpty { context.read() }
    }

    func receive(_ part: ByteBuffer, _ context: ChannelHandlerContext) {
        switch state {
        case .receiving(var incoming):
            guard !incoming.isHeld else {
                incoming.early.append(part)
                state = .receiving(incoming)
                return
            }
            progress += part.readableBytes
            shared.counts.received.count(part.readableBytes)
            guard incoming.rejection == nil else { return }
            add(part, to: incoming, context)
        case .lingering(let left):
            if left < part.readableBytes { context.close(promise: nil) }
            state = .lingering(left: left - part.readableBytes)
        case .idle, .answering: break
        }
    }

    /// Appends a part to the body, and writes a full body as a piece.
    private func add(
        _ part: ByteBuffer, to incoming: Incoming, _ context: ChannelHandlerContext
    ) {
        guard let body = incoming.body,
            part.readableBytes <= incoming.length - incoming.before - body.count
        else { return context.close(promise: nil) }
        var rest = part
        let first = rest.readSlice(length: min(body.room, part.readableBytes)) ?? ByteBuffer()
        body.append(first)
        guard body.room == 0, incoming.before + body.count < incoming.length else { return }
        var incoming = incoming
        if rest.readableBytes > 0 { incoming.early = [rest] }
        store(body, of: incoming, context)
    }

    private func store(
        _ body: RequestBody, of incoming: Incoming, _ context: ChannelHandlerContext
    ) {
        guard let route = incoming.route else { return }
        var incoming = incoming
        incoming.isStoring = true
        state = .receiving(incoming)
        timer?.cancel()
        let (request, cost) = (self.request(incoming, route), incoming.cost)
        let (shared, loop) = (shared, context.eventLoop)
        let bound = NIOLoopBound((self, context), eventLoop: loop)
        shared.queue.add(on: route.subject, for: turn) { memory in
            let response = shared.service.respond(to: request, memory)
            loop.execute {
                let (handler, context) = bound.value
                handler.stored(body, response, cost: cost, context)
            }
        }
    }

    private func stored(
        _ body: RequestBody, _ response: Response, cost: Int, _ context: ChannelHandlerContext
    ) {
        guard case .receiving(var incoming) = state, incoming.isStoring else {
            // The client disconnected during the write.
            shared.bodies.give(body)
            return shared.budget.give(cost, of: account)
        }
        incoming.isStoring = false
        incoming.before += body.count
        body.reset()
        if response.problem != nil { incoming.rejection = response }
        state = .receiving(incoming)
        armForBody(context)
        replay(context)
    }

    func request(_ incoming: Incoming, _ route: any ServedRoute) -> Request {
        var request = Request(
            route: route, method: incoming.head.method, headers: incoming.head.headers,
            body: incoming.body, peer: client(shown: knownCredential), grant: incoming.grant)
        request.length = incoming.length
        request.before = incoming.before
        request.reasonToGiveUp = { [life] in life.reasonToGiveUp }
        return request
    }

    func complete(_ context: ChannelHandlerContext) {
        guard case .receiving(var incoming) = state else { return }
        guard !incoming.isHeld else {
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
        let request = self.request(incoming, route)
        let (shared, loop, cost) = (shared, context.eventLoop, incoming.cost)
        let bound = NIOLoopBound((self, context), eventLoop: loop)
        subject = route.subject
        let isQuestion = [.GET, .HEAD].contains(request.method)
        let isOfSession = route.isOfSession
        shared.queue.add(isOfSession: isOfSession, on: subject, for: turn) { [life] memory in
            // A session's data is written even if its client has gone.
            let rejection =
                isQuestion || !isOfSession
                ? life.rejection(isOfSession: isOfSession || !isQuestion) : nil
            let response = rejection ?? shared.service.respond(to: request, memory)
            if let body = request.body { shared.bodies.give(body) }
            loop.execute {
                let (handler, context) = bound.value
                handler.send(response, isHead: request.method == .HEAD, cost: cost, context)
            }
        }
    }

    func answerRejection(_ context: ChannelHandlerContext) {
        guard case .receiving(let incoming) = state, var response = incoming.rejection else {
            return
        }
        incoming.route?.adapt(&response)
        timer?.cancel()
        if let body = incoming.body { shared.bodies.give(body) }
        state = .answering
        fitRead(context)
        send(
            response, isHead: incoming.head.method == .HEAD,
            cost: incoming.isGranted ? incoming.cost : 0, context)
    }
}
