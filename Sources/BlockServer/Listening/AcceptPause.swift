// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
internal import NIOCore

/// Stops accepting for a moment after an accept failed for lack of descriptors or memory.
///
/// The connection stays in the queue, so epoll reports it again at once, and the event loop would
/// spin. NIO's `AcceptBackoffHandler` does not help: it delays the next read, but a read that has
/// failed stays pending.
final class AcceptPause: ChannelInboundHandler, Sendable {
    typealias InboundIn = any Channel

    private static let length = TimeAmount.milliseconds(100)

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        guard let errno = (error as? NIOCore.IOError)?.errnoCode, errno != ECONNABORTED else {
            return context.fireErrorCaught(error)
        }
        let channel = context.channel
        // Unlike a delayed read this also withdraws the pending one.
        _ = channel.setOption(.autoRead, value: false)
        _ = channel.eventLoop.scheduleTask(in: Self.length) {
            _ = channel.setOption(.autoRead, value: true)
        }
    }
}
