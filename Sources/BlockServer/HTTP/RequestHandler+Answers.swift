// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Logging
internal import NIOCore
internal import NIOHTTP1
internal import Synchronization
internal import WireProtocol

extension RequestHandler {
    /// Sends a response and then gives the request's bytes of the budget back.
    ///
    /// For a response in pieces it first takes memory for one piece.
    func send(
        _ response: Response, isHead: Bool, cost: Int, _ context: ChannelHandlerContext
    ) {
        guard !isHead, context.channel.isActive else {
            return sendNow(response, isHead: isHead, cost: cost, context)
        }
        if case .bytes(let bytes) = response.body {
            let size = bytes.readableBytes
            guard cost == 0, asked?.method == .GET, size > RequestRules.smallAnswer else {
                return sendNow(response, isHead: false, cost: cost, context)
            }
            // A long list of devices; after the 503 the client asks again.
            guard shared.budget.takeNow(size, for: account) else {
                return sendNow(RequestRules.noMemoryInTime, isHead: false, cost: 0, context)
            }
            return sendNow(response, isHead: false, cost: size, context)
        }
        let piece = ContentSource.step
        let isTaken = takeMemory(piece, context, limit: RequestRules.waitingDownloads) {
            handler, context in
            guard context.channel.isActive else {
                handler.shared.budget.give(cost, of: handler.account)
                return false
            }
            handler.sendNow(response, isHead: false, cost: cost, piece: piece, context)
            return true
        }
        if !isTaken { sendNow(RequestRules.noMemoryInTime, isHead: false, cost: cost, context) }
    }

    private func sendNow(
        _ response: Response, isHead: Bool, cost: Int, piece: Int = 0,
        _ context: ChannelHandlerContext
    ) {
        guard context.channel.isActive else {
            giveBack(cost, piece)
            return
        }
        var head = HTTPResponseHead(version: .http1_1, status: response.status)
        head.headers = response.headers
        // Without a length NIO sends the body in chunks.
        let length: Int?
        switch response.body {
        case .bytes(let bytes): length = bytes.readableBytes
        case .stream(let source):
            length = source.isChunked && takesChunks && !isHead ? nil : source.length
        }
        if let length, ![.noContent, .notModified].contains(response.status) {
            head.headers.add(name: "Content-Length", value: "\(length)")
        }
        if !keepsAlive || isEnding {
            keepsAlive = false
            head.headers.add(name: "Connection", value: "close")
        }
        log(response)
        shared.counts.answered(response.status.code)
        armForAnswer(context)
        context.write(wrapOutboundOut(.head(head)), promise: nil)
        switch response.body {
        case .bytes(let bytes):
            if !isHead && bytes.readableBytes > 0 {
                shared.counts.sent.count(bytes.readableBytes)
                context.write(wrapOutboundOut(.body(.byteBuffer(bytes))), promise: nil)
            }
            end(cost: cost, context)
        case .stream(let source):
            if isHead {
                end(cost: cost, context)
            } else {
                stream(source, cost: cost, piece: piece, context)
            }
        }
    }

    private func giveBack(_ cost: Int, _ piece: Int) {
        shared.budget.give(cost, of: account)
        shared.budget.give(piece, of: account)
    }

    private func log(_ response: Response) {
        guard let asked else { return }
        // The path holds no secrets: tokens are in a header, digest keys in a body.
        var metadata: Logger.Metadata = [
            "peer": "\(peer)", "method": "\(asked.method)",
            "path": "\(asked.uri.prefix(Self.loggedPath))",
        ]
        shared.logger.debug(
            "request",
            metadata: metadata.merging(["status": "\(response.status.code)"]) { $1 })
        guard let problem = response.problem else {
            guard case .stream = response.body, asked.method == .GET else { return }
            return shared.events.note("download", .info, from: address, client: client, metadata)
        }
        // A client first identifies the server, and sends its token only afterwards.
        if response.tokenFault == .missing,
            shared.service.route(asked.uri)?.isFirstQuestion == true
        {
            return
        }
        // A wrong token has its own line.
        guard Self.isRefusal(problem), response.tokenFault != .wrong else { return }
        metadata["reason"] = "\(problem.detail)"
        shared.events.note(
            "refused", .warning, from: address, client: client, status: problem.status, metadata)
    }

    private static let loggedPath = 200

    /// Whether the server refused the client something; the log omits other errors.
    private static func isRefusal(_ problem: Problem) -> Bool {
        switch problem.kind {
        case .access, .refused, .locked, .ambiguous: true
        // The server's user lacks the right to open or create the export.
        case .deviceError: problem.status == 403
        case .unauthorized: problem.status != 429
        case .notFound: problem.object != nil
        case .busy: problem.status == 429
        default: false
        }
    }

    /// Closes the connection of a client that reads its response too slowly, or not at all.
    private func armForAnswer(_ context: ChannelHandlerContext, unsent: Int? = nil) {
        arm(shared.patience, context) { handler, context in
            guard case .answering = handler.state else { return }
            let left = handler.unsent(context)
            let least = RequestRules.leastProgress(in: handler.shared.patience)
            if let unsent, left > 0, unsent - left < least {
                context.close(promise: nil)
            } else {
                handler.armForAnswer(context, unsent: left)
            }
        }
    }

    /// Bytes of the response that the kernel has not accepted yet.
    private func unsent(_ context: ChannelHandlerContext) -> Int {
        (try? context.channel.syncOptions?.getOption(.bufferedWritableBytes)) ?? 0
    }

    private func stream(
        _ source: any BodySource, cost: Int, piece: Int, _ context: ChannelHandlerContext
    ) {
        guard !source.isAtEnd, context.channel.isActive else {
            end(cost: cost, piece: piece, context)
            return
        }
        streamed = source.permission
        let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
        let loop = context.eventLoop
        shared.queue.add(on: subject, for: turn) { [rights = shared.service.rights] memory in
            var bytes: ByteBuffer?
            do throws(Problem) {
                if rights.allow(source.permission) { bytes = try source.next(memory) }
            } catch {
                bytes = nil
            }
            loop.execute { [bytes] in
                let (handler, context) = bound.value
                handler.send(bytes, of: source, cost: cost, piece: piece, context)
            }
        }
    }

    private func send(
        _ result: ByteBuffer?, of source: any BodySource, cost: Int, piece: Int,
        _ context: ChannelHandlerContext
    ) {
        // The head is already sent, so an error can only abort the response.
        guard let bytes = result, context.channel.isActive else {
            giveBack(cost, piece)
            context.close(promise: nil)
            return
        }
        shared.counts.sent.count(bytes.readableBytes)
        armForAnswer(context)
        let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
        context.writeAndFlush(wrapOutboundOut(.body(.byteBuffer(bytes)))).whenComplete { _ in
            let (handler, context) = bound.value
            handler.stream(source, cost: cost, piece: piece, context)
        }
    }

    /// Aborts a streamed response that is not allowed any more, even if the client does not read.
    ///
    /// After a change of the authority, a client with a certificate must reconnect.
    func rightsChanged(_ change: RightsChange, _ context: ChannelHandlerContext) {
        if change.isOfAuthority && asksForCertificate {
            guard streamed == nil, case .answering = state else {
                return context.close(promise: nil)
            }
            isEnding = true
            return
        }
        endBodyOfEndedSession(context)
        guard let permission = streamed else { return }
        if let isAllowed = shared.service.rights.allowAtOnce(permission) {
            if !isAllowed { context.close(promise: nil) }
            return
        }
        let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
        let loop = context.eventLoop
        shared.queue.add(for: turn) { [rights = shared.service.rights] _ in
            if rights.allow(permission) { return }
            loop.execute {
                let (handler, context) = bound.value
                if handler.streamed === permission { context.close(promise: nil) }
            }
        }
    }

    /// Rejects a body that is still arriving for an ended session, to free its memory.
    private func endBodyOfEndedSession(_ context: ChannelHandlerContext) {
        guard case .receiving(var incoming) = state, incoming.isGranted, !incoming.isStoring,
            incoming.rejection == nil, incoming.length > 0,
            let rejection = incoming.route?.rejection(incoming.grant)
        else { return }
        incoming.rejection = rejection
        state = .receiving(incoming)
        keepsAlive = false
        answerRejection(context)
    }

    private func end(cost: Int, piece: Int = 0, _ context: ChannelHandlerContext) {
        let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
        streamed = nil
        context.writeAndFlush(wrapOutboundOut(.end(nil))).whenComplete { _ in
            let (handler, context) = bound.value
            handler.giveBack(cost, piece)
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
            if parts.isEmpty && life.isInputClosed.load(ordering: .relaxed) {
                context.close(promise: nil)
            } else {
                context.read()
            }
            return
        }
        if isUpgrade { return context.close(promise: nil) }
        next = []
        // Closing while the client still sends would discard the response.
        state = .lingering(left: Self.lingerBytes)
        context.close(mode: .output, promise: nil)
        arm(.seconds(2), context) { $0.context.close(promise: nil) }
        context.read()
    }
}
