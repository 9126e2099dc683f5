// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import LinuxIO

/// Reads a device from its start in windows, the next one while the caller works on the last.
///
/// It is safe to send, because its thread works only between `begin` and the wait in `next`.
final class WindowStream: @unchecked Sendable {
    enum Content {
        /// The bytes of the window, followed by zeros up to the full length of a window.
        case data(UnsafeRawBufferPointer)
        case zeros
        /// It was not read.
        case skipped
    }

    struct Window {
        var range: ByteRange
        /// Valid until the next window is taken.
        var content: Content
    }

    /// Bytes; a multiple of every alignment.
    static let length = 4 << 20

    private let device: any BlockDevice
    private let size: Int
    private let isWanted: @Sendable (ByteRange) -> Bool
    private let buffers: [Memory]
    private var turn = 0
    private var offset = 0
    private var loading: Threads.Running?
    private var loaded: Result<Window, IOError>?
    /// The last known run of data; `nil` before the first, and empty if none follows.
    private var data: ByteRange?

    private final class Memory: Sendable {
        let buffer = AlignedBuffer(count: WindowStream.length)
    }

    /// - Parameters:
    ///   - size: bytes to read, at most those of the device.
    ///   - isWanted: whether a window is read.
    init(
        _ device: any BlockDevice, size: Int,
        isWanted: @escaping @Sendable (ByteRange) -> Bool = { _ in true }
    ) {
        self.device = device
        self.size = size
        self.isWanted = isWanted
        buffers = [Memory(), Memory()]
    }

    /// Waits for the thread, which uses this object.
    func stop() {
        loading.take()?.wait()
        offset = size
    }

    /// The next window; `nil` at the end.
    func next() throws(IOError) -> Window? {
        if loaded == nil, loading == nil { begin() }
        loading.take()?.wait()
        guard let result = loaded else { return nil }
        loaded = nil
        let window = try result.get()
        begin()
        return window
    }

    private func begin() {
        guard offset < size else { return }
        let range = ByteRange(offset, to: min(offset + Self.length, size))
        let memory = buffers[turn]
        turn = (turn + 1) % buffers.count
        offset = range.end
        loading = Threads.start(count: 1) { [self] _ in
            loaded = Result { () throws(IOError) in
                Window(range: range, content: try content(range, memory.buffer.bytes))
            }
        }
    }

    private func content(
        _ range: ByteRange, _ memory: UnsafeMutableRawBufferPointer
    ) throws(IOError) -> Content {
        guard isWanted(range) else { return .skipped }
        if data.map({ !$0.isEmpty && $0.end <= range.offset }) ?? true {
            data = try device.nextData(from: range.offset) ?? ByteRange(offset: size, length: 0)
        }
        guard let data, data.overlaps(range) else { return .zeros }
        try device.read(into: slice(memory, 0, range.length), at: range.offset)
        if range.length < memory.count {
            slice(memory, range.length, memory.count)
                .initializeMemory(as: UInt8.self, repeating: 0)
        }
        return .data(UnsafeRawBufferPointer(memory))
    }
}

extension RunningDigest {
    /// Adds the first bytes of a window.
    func add(_ content: WindowStream.Content, count: Int) throws(IOError) {
        switch content {
        case .data(let bytes): try add(slice(bytes, 0, count))
        case .zeros, .skipped: try addZeros(count)
        }
    }
}
