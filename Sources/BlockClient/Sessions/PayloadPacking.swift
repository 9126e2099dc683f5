// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
internal import LinuxIO
internal import Synchronization
internal import WireProtocol
internal import Zstandard

/// Which payloads of a device's session go compressed, and the memory for that; all its connections
/// share it.
final class PayloadPacking: Sendable {
    let mode: CompressionMode
    private let choice: Mutex<CompressionChoice>
    private let start = ContinuousClock.now
    private let idle = Mutex<[PackingWorkspace]>([])

    init(_ mode: CompressionMode) {
        self.mode = mode
        choice = Mutex(CompressionChoice(processors: sysconf(Int32(_SC_NPROCESSORS_ONLN))))
    }

    /// Seconds since this object was made.
    var now: Double { (ContinuousClock.now - start) / .seconds(1) }

    /// Runs a body with a workspace, of which there are as many as threads that compress or
    /// decompress at the same time.
    ///
    /// - Returns: `nil` also without memory.
    func withWorkspace<Result>(_ body: (PackingWorkspace) -> Result?) -> Result? {
        guard let workspace = idle.withLock({ $0.popLast() }) ?? PackingWorkspace() else {
            return nil
        }
        defer { idle.withLock { $0.append(workspace) } }
        return body(workspace)
    }

    /// Changes the choice; `nil` if nothing is to be chosen.
    func choose<Result: Sendable>(
        _ body: (inout CompressionChoice, _ now: Double) -> Result
    ) -> Result? {
        guard mode == .auto else { return nil }
        let now = now
        return choice.withLock { body(&$0, now) }
    }
}

/// What a thread needs to compress and decompress.
///
/// It is safe to send, because one thread at a time has it.
final class PackingWorkspace: @unchecked Sendable {
    let context: ZstdContext
    /// A payload in one piece.
    fileprivate var plain = PackingBuffer()
    fileprivate var packed = PackingBuffer()

    /// `nil` without libzstd, or without memory.
    fileprivate init?() {
        guard let context = ZstdContext() else { return nil }
        self.context = context
    }
}

/// One connection's payloads in a session that packs them, with memory that is kept.
///
/// An exchange begins with `pack` or `beginReading`, and ends with `finish` or `abandon`.
final class PayloadPacker {
    private let packing: PayloadPacking
    /// The last payload that was sent, compressed.
    private var sent = PackingBuffer()
    /// The last payload that was received, decompressed.
    private var received = PackingBuffer()
    private let footer = UnsafeMutableRawBufferPointer.allocate(
        byteCount: PackedFrame.footerSize, alignment: 8)
    private var began = 0.0
    /// Whether the payload of this exchange is to be compressed.
    private var isWanted = false

    init(_ packing: PayloadPacking) { self.packing = packing }

    deinit { footer.deallocate() }

    /// Begins an exchange that sends a sealed payload, and returns what to send.
    ///
    /// - Returns: valid until the next call.
    func pack(_ parts: [UnsafeRawBufferPointer]) -> [UnsafeRawBufferPointer] {
        let count = parts.reduce(0) { $0 + $1.count }
        begin { parts.max { $0.count < $1.count } }
        if isWanted, let frame = compressed(parts, count: count) {
            PackedFrame.writeFooter(count: count, .zstd, to: footer)
            return [frame, UnsafeRawBufferPointer(footer)]
        }
        PackedFrame.writeFooter(count: count, .plain, to: footer)
        return parts + [UnsafeRawBufferPointer(footer)]
    }

    /// Begins an exchange that receives a payload, and returns the coding that it may have.
    ///
    /// - Parameter last: the data of the last payload, of which a sample is taken.
    func beginReading(last: UnsafeRawBufferPointer?) -> PackedFrame.Coding {
        begin { last }
        return isWanted ? .zstd : .plain
    }

    /// Returns the sealed payload of an answer, valid until the next call.
    ///
    /// - Throws: an error of kind `corrupted`, or about memory.
    func unpacked(_ answer: UnsafeRawBufferPointer) throws(IOError) -> UnsafeRawBufferPointer {
        let frame = try PackedFrame(answer)
        guard frame.coding == .zstd else { return frame.content }
        let memory = received.reserve(frame.count)
        let result = packing.withWorkspace { workspace in
            memory.map { memory in
                Result { () throws(IOError) in try frame.unpacked(into: memory, workspace.context) }
            }
        }
        guard let result else { throw Memory.error("payload", "unpack", frame.count) }
        return try result.get()
    }

    /// Ends an exchange.
    ///
    /// - Parameters:
    ///   - count: bytes of the payload.
    ///   - length: bytes of the payload on the wire.
    func finish(count: Int, onWire length: Int) {
        let (began, isWanted) = (began, isWanted)
        _ = packing.choose { choice, now in
            if isWanted {
                choice.note(packed: length, of: count, seconds: now - began, at: now)
            } else {
                choice.note(plain: count, seconds: now - began, at: now)
            }
        }
    }

    /// Ends an exchange that failed.
    func abandon() { _ = packing.choose { $0.abandon(at: $1) } }

    private func begin(_ sample: () -> UnsafeRawBufferPointer?) {
        began = packing.now
        switch packing.choose({ $0.begin(at: $1) }) {
        case nil, .compressed?: isWanted = true
        case .plain?: isWanted = false
        case .sample?: isWanted = sample().map { isWorthwhile($0) } ?? false
        }
    }

    /// Compresses a sample from the middle of the data.
    private func isWorthwhile(_ data: UnsafeRawBufferPointer) -> Bool {
        guard data.count >= CompressionChoice.leastMeasured else { return false }
        let count = min(data.count, CompressionChoice.sampleSize)
        let start = (data.count - count) / 2
        let before = packing.now
        let length = packing.withWorkspace { workspace in
            workspace.packed.reserve(count).flatMap { room in
                workspace.context.compress(
                    slice(data, start, start + count), into: slice(room, 0, count),
                    level: Zstd.fastLevel)
            }
        }
        return packing.choose { choice, now in
            choice.isWorthwhile(
                sample: length ?? count, of: count, seconds: now - before, at: now)
        } ?? true
    }

    /// A zstd frame of a payload; `nil` if it is not smaller, or without memory.
    private func compressed(
        _ parts: [UnsafeRawBufferPointer], count: Int
    ) -> UnsafeRawBufferPointer? {
        guard let level = packing.mode.level else { return nil }
        return packing.withWorkspace { workspace in
            guard let whole = workspace.plain.reserve(count),
                let room = workspace.packed.reserve(count)
            else { return nil }
            var place = 0
            for part in parts {
                slice(whole, place, place + part.count).copyMemory(from: part)
                place += part.count
            }
            let length = workspace.context.compress(
                UnsafeRawBufferPointer(slice(whole, 0, count)), into: slice(room, 0, count),
                level: level)
            // Other threads need the workspace while this one sends.
            guard let length, let own = sent.reserve(length) else { return nil }
            slice(own, 0, length).copyMemory(from: UnsafeRawBufferPointer(slice(room, 0, length)))
            return UnsafeRawBufferPointer(slice(own, 0, length))
        }
    }
}

/// Memory for a payload, allocated on demand, aligned for direct I/O.
fileprivate struct PackingBuffer: ~Copyable {
    private var buffer: AlignedBuffer?

    /// At least so many bytes, which keep nothing of the last call; `nil` without memory.
    mutating func reserve(_ count: Int) -> UnsafeMutableRawBufferPointer? {
        if let bytes = buffer?.bytes, bytes.count >= count { return bytes }
        let before = buffer?.count ?? 0
        buffer = AlignedBuffer(ifAvailable: max(1, count, before + before))
        return buffer?.bytes
    }
}
