// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import NIOCore

/// Allocates the buffers that NIO reads into: a small one for each connection, and larger ones for
/// bodies that have memory.
///
/// NIO keeps its first buffer as long as the connection lasts. `nextBufferSize` returns `nil` for
/// a larger buffer and `record` always returns `true`, so that `NIOPooledRecvBufferAllocator` does
/// not grow the buffer that it keeps and does not keep the larger one. This requires that
/// `maxMessagesPerRead` is 1.
struct ReadAllocator: RecvByteBufferAllocator {
    /// Bytes; holds most requests, and is all that a request without memory keeps.
    static let least = 4 << 10
    /// Bytes; a body of 2 MiB comes in five reads.
    static let most = 512 << 10
    /// Bytes; the handler for TLS keeps twice as many for each connection.
    static let mostOfTLS = 64 << 10

    private let size: Int

    /// - Parameter size: the most bytes that one read may bring, at least `least`.
    init(size: Int = ReadAllocator.least) { self.size = size }

    func buffer(allocator: ByteBufferAllocator) -> ByteBuffer {
        var buffer = allocator.buffer(capacity: size)
        // NIO rounds the capacity up and fills all of it.
        let excess = buffer.capacity - size
        buffer.moveWriterIndex(to: excess)
        buffer.moveReaderIndex(to: excess)
        return buffer
    }

    func nextBufferSize() -> Int? { size == Self.least ? size : nil }

    func record(actualReadBytes: Int) -> Bool { true }
}

/// Closes a connection whose client sends much and then closes its side while the server does not
/// read; stands before the parser.
///
/// NIO reads at the end of the input all that the kernel has received, without being asked. That
/// can be several MiB.
final class UnaskedInputLimit: ChannelDuplexHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = ByteBuffer
    typealias OutboundIn = IOData
    typealias OutboundOut = IOData

    /// Bytes; the parser makes up to 15 times as many of very short requests.
    private static let limit = 4 << 10

    private var isAsked = false
    private var unasked = 0
    private var isRejected = false

    func read(context: ChannelHandlerContext) {
        isAsked = true
        unasked = 0
        context.read()
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        if isRejected { return }
        if !isAsked {
            unasked += unwrapInboundIn(data).readableBytes
            guard unasked <= Self.limit else {
                isRejected = true
                return context.close(promise: nil)
            }
        }
        isAsked = false
        context.fireChannelRead(data)
    }
}
