// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import NIOCore
internal import WireProtocol

/// Answers a client that speaks plain HTTP to a TLS server, in plain HTTP; stands before TLS.
final class PlainTextDetector: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = ByteBuffer
    typealias OutboundOut = ByteBuffer

    /// ContentType `handshake` (RFC 8446, section 5.1), the first byte that a TLS client sends.
    private static let handshake: UInt8 = 22
    private var hasAnswered = false

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        if hasAnswered { return }
        let bytes = unwrapInboundIn(data)
        guard let first = bytes.getInteger(at: bytes.readerIndex, as: UInt8.self) else { return }
        guard first != Self.handshake else {
            context.fireChannelRead(data)
            context.pipeline.syncOperations.removeHandler(self, promise: nil)
            return
        }
        hasAnswered = true
        let problem = Problem(
            .malformed, status: 400, "The server speaks TLS", detail: "the server speaks TLS",
            advice: "Write https:// in place of http://.")
        let bound = NIOLoopBound(context, eventLoop: context.eventLoop)
        context.writeAndFlush(wrapOutboundOut(plainAnswer(problem))).whenComplete { _ in
            bound.value.close(promise: nil)
        }
    }
}

/// A complete response, head and body, that closes the connection.
func plainAnswer(_ problem: Problem) -> ByteBuffer {
    let body = WireJSON.encode(problem)
    let retry = problem.status == 503 ? "Retry-After: 1\r\n" : ""
    let head =
        "HTTP/1.1 \(problem.status) \(problem.status == 503 ? "Service Unavailable" : "Bad Request")"
        + "\r\nContent-Type: \(MediaType.problem)\r\nContent-Length: \(body.count)\r\n\(retry)"
        + "Connection: close\r\n\r\n"
    var bytes = ByteBuffer(string: head)
    bytes.writeBytes(body)
    return bytes
}
