// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Logging
internal import NIOCore
internal import NIOHTTP1
internal import WireProtocol

extension RequestHandler {
    /// Sends an answer; what of the budget the request has is given back when it is sent.
    func send(
        _ response: Response, isHead: Bool, cost: Int, _ context: ChannelHandlerContext
    ) {
        guard context.channel.isActive else {
            shared.budget.give(cost)
            return
        }
        var head = HTTPResponseHead(version: .http1_1, status: response.status)
        head.headers = response.headers
        // Without a length NIO makes chunks of the body.
        let length: Int?
        switch response.body {
        case .bytes(let bytes): length = bytes.readableBytes
        case .stream(let source):
            length = source.isChunked && takesChunks && !isHead ? nil : source.length
        }
        if let length, response.status != .noContent {
            head.headers.add(name: "Content-Length", value: "\(length)")
        }
        if !keepsAlive || isEnding {
            keepsAlive = false
            head.headers.add(name: "Connection", value: "close")
        }
        log(response.status)
        armForAnswer(context)
        context.write(wrapOutboundOut(.head(head)), promise: nil)
        switch response.body {
        case .bytes(let bytes):
            if !isHead && bytes.readableBytes > 0 {
                context.write(wrapOutboundOut(.body(.byteBuffer(bytes))), promise: nil)
            }
            end(cost: cost, context)
        case .stream(let source):
            if isHead {
                end(cost: cost, context)
            } else {
                stream(source, cost: cost, context)
            }
        }
    }

    private func log(_ status: HTTPResponseStatus) {
        guard let asked else { return }
        // Its path has no secrets: tokens are in a header, keys of digests in a body.
        shared.logger.debug(
            "request",
            metadata: [
                "peer": "\(peer)", "method": "\(asked.method)", "path": "\(asked.uri)",
                "status": "\(status.code)",
            ])
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

    /// Sends what a source makes, one piece after the other as the client takes them.
    private func stream(
        _ source: any BodySource, cost: Int, _ context: ChannelHandlerContext
    ) {
        guard !source.isAtEnd, context.channel.isActive else {
            end(cost: cost, context)
            return
        }
        let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
        let loop = context.eventLoop
        shared.queue.add { memory in
            let piece: Result<ByteBuffer, Problem>
            do throws(Problem) { piece = .success(try source.next(memory)) } catch {
                piece = .failure(error)
            }
            loop.execute {
                let (handler, context) = bound.value
                handler.send(piece, of: source, cost: cost, context)
            }
        }
    }

    private func send(
        _ piece: Result<ByteBuffer, Problem>, of source: any BodySource, cost: Int,
        _ context: ChannelHandlerContext
    ) {
        // After the head was sent, all that an error leaves is to break off.
        guard case .success(let bytes) = piece, context.channel.isActive else {
            shared.budget.give(cost)
            context.close(promise: nil)
            return
        }
        armForAnswer(context)
        let bound = NIOLoopBound((self, context), eventLoop: context.eventLoop)
        context.writeAndFlush(wrapOutboundOut(.body(.byteBuffer(bytes)))).whenComplete { _ in
            let (handler, context) = bound.value
            handler.stream(source, cost: cost, context)
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
