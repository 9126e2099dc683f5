// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import LinuxIO
internal import NIOCore
internal import Synchronization
internal import WireProtocol

/// Keeps the memory of payloads for reuse: clearing fresh pages costs as much as copying.
final class PayloadMemory: Sendable {
    static let shared = PayloadMemory()

    private let kept = Mutex<[ByteBuffer]>([])
    /// As many as bodies of requests are kept.
    private static let mostKept = 8

    /// An empty buffer with room for `Limits.body` bytes, the first of them at an address for
    /// direct I/O.
    func take() -> ByteBuffer {
        var buffer = kept.withLock { $0.isEmpty ? ByteBuffer() : $0.removeFirst() }
        let alignment = AlignedBuffer.alignment
        // If its last payload is still being sent, NIO allocates other memory here.
        buffer.clear(minimumCapacity: Limits.body + alignment)
        let excess = buffer.withVeryUnsafeBytes { bytes in
            bytes.baseAddress.map { Int(bitPattern: $0) % alignment } ?? 0
        }
        let start = excess == 0 ? 0 : alignment - excess
        buffer.moveWriterIndex(to: start)
        buffer.moveReaderIndex(to: start)
        return buffer
    }

    /// Keeps a buffer for the payloads after this one; ignores a compressed payload's.
    func keep(_ buffer: ByteBuffer) {
        guard buffer.capacity > Limits.body else { return }
        kept.withLock { if $0.count < Self.mostKept { $0.append(buffer) } }
    }
}
