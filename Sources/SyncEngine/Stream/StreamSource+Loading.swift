// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import Glibc
internal import LinuxIO
internal import Synchronization
internal import SystemPackage

extension StreamSource {
    /// Reads the next window for a thread; `nil` at the end, or if the wait is cancelled.
    ///
    /// Only one thread at a time may call it.
    ///
    /// - Parameters:
    ///   - length: bytes of every window but the last.
    ///   - index: of the thread.
    ///   - isStopping: ends the wait for the producer.
    /// - Throws: also if the stream ends elsewhere than it must; its last window is not returned
    ///   then.
    func load(
        _ length: Int, for index: Int, unless isStopping: () -> Bool
    ) throws(IOError) -> ByteRange? {
        let (position, end, slot) = state.withLock { state in
            state.windowSize = length
            let memory =
                state.slots[index]?.memory ?? .allocate(byteCount: length, alignment: 4096)
            // A window that was processed must not be found any more.
            let slot = Slot(memory: memory, range: ByteRange(offset: 0, length: 0))
            state.slots[index] = slot
            return (state.position, state.end, slot)
        }
        let limit = end.limit
        let wanted = min(length, limit - position)
        var count = take(wanted, into: slot.memory)
        if count < wanted, !hasEnded {
            count += try fill(slice(slot.memory, count, wanted), unless: isStopping)
            if isStopping() || isCancelled() { return nil }
            if count < wanted { state.withLock { $0.hasEnded = true } }
        }
        if position + count == limit || count < wanted {
            try finish(at: position + count, end, unless: isStopping)
            if !hasEnded { return nil }
        }
        guard count > 0 else { return nil }
        let range = ByteRange(offset: position, length: count)
        state.withLock { state in
            state.position = range.end
            state.slots[index] = Slot(memory: slot.memory, range: range)
        }
        return range
    }

    private var hasEnded: Bool { state.withLock { $0.hasEnded && $0.ahead == 0 } }

    /// Takes bytes that were read ahead.
    private func take(_ count: Int, into memory: UnsafeMutableRawBufferPointer) -> Int {
        state.withLock { state in
            let taken = min(count, state.ahead)
            let start = state.head.count - state.ahead
            if taken > 0 { memory.copyBytes(from: state.head[start..<start + taken]) }
            state.ahead -= taken
            if state.ahead == 0 { state.head = [] }
            return taken
        }
    }

    /// Checks the end of the stream, which is at a position or behind it.
    private func finish(
        at position: Int, _ end: End, unless isStopping: () -> Bool
    ) throws(IOError) {
        if !hasEnded {
            guard try isLonger(end, unless: isStopping) else { return }
            throw end.error(name, position, isLonger: true)
        }
        switch end {
        case .announced(let size), .atTarget(let size):
            guard position == size else { throw end.error(name, position, isLonger: false) }
        case .withinTarget, .compared, .anywhere: break
        }
    }

    /// Whether the stream continues behind the last byte that may be loaded; a comparison reads the
    /// rest.
    private func isLonger(_ end: End, unless isStopping: () -> Bool) throws(IOError) -> Bool {
        let size = 64 << 10
        let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: size, alignment: 8)
        defer { memory.deallocate() }
        // What was read ahead does not count twice.
        var rest = state.withLock { state in
            let ahead = state.ahead
            if case .compared = end { (state.ahead, state.head) = (0, []) }
            return ahead
        }
        var isCompared = false
        if case .compared = end { isCompared = true }
        if rest > 0 && !isCompared { return true }
        while !state.withLock({ $0.hasEnded }) {
            let count = try fill(slice(memory, 0, isCompared ? size : 1), unless: isStopping)
            if isStopping() || isCancelled() { return false }
            rest += count
            if count < (isCompared ? size : 1) { state.withLock { $0.hasEnded = true } }
            if count > 0 && !isCompared { return true }
        }
        state.withLock { $0.rest = rest }
        return false
    }

    /// Reads until a buffer is full or the stream has ended; returns early if the wait is cancelled.
    ///
    /// The corresponding C functions are `read` and `poll`.
    func fill(
        _ buffer: UnsafeMutableRawBufferPointer, unless isStopping: () -> Bool = { false }
    ) throws(IOError) -> Int {
        var done = 0
        while done < buffer.count {
            var polled = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            // A signal does not wake this thread.
            let isReady = poll(&polled, 1, 100)
            if isStopping() || isCancelled() { return done }
            if isReady == 0 || (isReady < 0 && errno == EINTR) { continue }
            let rest = slice(buffer, done, buffer.count)
            let count = Glibc.read(descriptor, rest.baseAddress, rest.count)
            if count < 0 {
                let reason = currentErrno()
                if reason == .interrupted || reason == .resourceTemporarilyUnavailable { continue }
                throw IOError(name, "read", reason)
            }
            if count == 0 { break }
            done += count
        }
        return done
    }
}

extension StreamSource.End {
    /// Bytes that may be loaded at most.
    fileprivate var limit: Int {
        switch self {
        case .announced(let size), .atTarget(let size), .withinTarget(let size),
            .compared(let size):
            size
        case .anywhere: Geometry.maximumSize
        }
    }

    fileprivate func error(_ name: String, _ position: Int, isLonger: Bool) -> IOError {
        switch self {
        case .announced(let size):
            return IOError(
                name, "read",
                reason: isLonger
                    ? "it goes on behind the \(size) bytes of --size"
                    : "it ended after \(position) of the \(size) bytes of --size",
                advice: "The target is incomplete.")
        case .atTarget(let size), .withinTarget(let size), .compared(let size):
            return IOError(
                name, "read",
                reason: isLonger
                    ? "it goes on behind the target's end, at \(size) bytes"
                    : "it ended after \(position) bytes, and the target has \(size)",
                advice: isLonger
                    ? "The target is incomplete; with --size it would have been refused before."
                    : "--size-policy prefix accepts that; --size says it before the first write.")
        case .anywhere:
            return IOError(
                name, "read",
                reason: "it has more than the \(Geometry.maximumSize) bytes that blkferry copies")
        }
    }
}
