// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import LinuxIO
internal import NIOCore
internal import Synchronization
internal import WireProtocol
internal import Zstandard

/// What a thread of the queue needs to pack or unpack a payload, kept for the next one.
private final class PackingMemory: Sendable {
    let context: ZstdContext
    let buffer: AlignedBuffer

    /// `nil` without libzstd, or without memory.
    private init?() {
        guard let context = ZstdContext(),
            let buffer = AlignedBuffer(ifAvailable: Limits.body)
        else { return nil }
        self.context = context
        self.buffer = buffer
    }

    private static let idle = Mutex<[PackingMemory]>([])
    /// As many as bodies of requests are kept.
    private static let kept = 8

    /// The threads of the queue bound how many there are.
    static func take() throws(Problem) -> PackingMemory {
        if let memory = idle.withLock({ $0.popLast() }) { return memory }
        guard let memory = PackingMemory() else { throw .noMemory }
        return memory
    }

    func give() {
        Self.idle.withLock { if $0.count < Self.kept { $0.append(self) } }
    }
}

extension Session {
    /// Runs a body with the sealed payload of a request.
    ///
    /// A packed payload is unpacked into memory of its own, once its size is known to be within the
    /// limit.
    ///
    /// - Throws: 422 for a packed payload that cannot be unpacked, 503 without memory.
    func withUnpacked(
        _ request: UnsafeRawBufferPointer,
        _ body: (UnsafeRawBufferPointer) throws(Problem) -> Void
    ) throws(Problem) {
        guard zstdLevel != nil else { return try body(request) }
        let frame: PackedFrame
        do throws(IOError) { frame = try PackedFrame(request) } catch { throw Problem(error) }
        guard frame.coding == .zstd else { return try body(frame.content) }
        let memory = try PackingMemory.take()
        defer { memory.give() }
        let sealed: UnsafeRawBufferPointer
        do throws(IOError) {
            sealed = try frame.unpacked(into: memory.buffer.bytes, memory.context)
        } catch {
            throw Problem(error)
        }
        try body(sealed)
    }

    /// Packs a sealed payload if the session's payloads are packed, compressed if the client wants
    /// that and it becomes smaller.
    ///
    /// - Throws: 503 without memory.
    func pack(_ payload: inout ByteBuffer, _ coding: PackedFrame.Coding) throws(Problem) {
        guard let zstdLevel else { return }
        let count = payload.readableBytes
        if coding == .zstd, let compressed = try compressed(payload, level: zstdLevel) {
            PayloadMemory.shared.keep(payload)
            payload = compressed
            Self.appendFooter(to: &payload, count: count, .zstd)
        } else {
            Self.appendFooter(to: &payload, count: count, .plain)
        }
    }

    /// A zstd frame of a payload; `nil` if it is not smaller.
    private func compressed(_ payload: ByteBuffer, level: Int) throws(Problem) -> ByteBuffer? {
        let memory = try PackingMemory.take()
        defer { memory.give() }
        let room = slice(memory.buffer.bytes, 0, payload.readableBytes)
        let length = payload.withUnsafeReadableBytes {
            memory.context.compress($0, into: room, level: level)
        }
        guard let length else { return nil }
        var packed = ByteBufferAllocator().buffer(capacity: length + PackedFrame.footerSize)
        packed.writeBytes(UnsafeRawBufferPointer(slice(room, 0, length)))
        return packed
    }

    private static func appendFooter(
        to content: inout ByteBuffer, count: Int, _ coding: PackedFrame.Coding
    ) {
        let size = PackedFrame.footerSize
        content.writeWithUnsafeMutableBytes(minimumWritableBytes: size) { memory in
            PackedFrame.writeFooter(count: count, coding, to: memory)
            return size
        }
    }
}
