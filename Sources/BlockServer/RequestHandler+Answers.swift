// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
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
