// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import LinuxIO
internal import NIOCore
internal import Synchronization

/// Bytes that all requests in work may take together; who wants more than is left waits in line.
final class MemoryBudget: Sendable {
    private struct Waiter {
        var bytes: Int
        var grant: @Sendable () -> Void
    }
    private struct State {
        var free: Int
        var waiters: [Waiter] = []
    }
    private let state: Mutex<State>
    private let total: Int

    init(bytes: Int) {
        total = bytes
        state = Mutex(State(free: bytes))
    }

    /// Takes bytes, now or later.
    ///
    /// - Parameters:
    ///   - bytes: no more than the whole budget.
    ///   - grant: called once they are there, on whatever thread; at once where they are.
    func take(_ bytes: Int, then grant: @escaping @Sendable () -> Void) {
        let bytes = min(bytes, total)
        let isGranted = state.withLock { state in
            guard state.waiters.isEmpty && bytes <= state.free else {
                state.waiters.append(Waiter(bytes: bytes, grant: grant))
                return false
            }
            state.free -= bytes
            return true
        }
        if isGranted { grant() }
    }

    /// Gives bytes back.
    func give(_ bytes: Int) {
        let granted = state.withLock { state in
            state.free += min(bytes, total)
            var granted: [Waiter] = []
            while let first = state.waiters.first, first.bytes <= state.free {
                state.free -= first.bytes
                granted.append(state.waiters.removeFirst())
            }
            return granted
        }
        for waiter in granted { waiter.grant() }
    }

    /// Bytes that nobody has, for tests.
    var free: Int { state.withLock { $0.free } }
}

/// A request's body, in memory that is aligned for direct I/O.
final class RequestBody: @unchecked Sendable {
    private let buffer: AlignedBuffer
    private(set) var count = 0
    let capacity: Int

    init(capacity: Int) {
        self.capacity = capacity
        buffer = AlignedBuffer(count: max(1, capacity))
    }

    var bytes: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(buffer.bytes)[..<count])
    }

    /// Adds what has come; `false` when that is more than was announced.
    func append(_ part: ByteBuffer) -> Bool {
        guard count + part.readableBytes <= capacity else { return false }
        part.withUnsafeReadableBytes { bytes in
            UnsafeMutableRawBufferPointer(rebasing: buffer.bytes[count..<count + bytes.count])
                .copyMemory(from: bytes)
        }
        count += part.readableBytes
        return true
    }

    /// Empties it for another request.
    func reset() { count = 0 }
}

/// Large bodies' memory, kept for the next ones: clearing fresh pages costs as much as copying.
final class BodyPool: Sendable {
    private let free = Mutex<[RequestBody]>([])
    private static let kept = 8
    /// Smaller ones are made anew.
    private static let largeSize = 64 << 10
    private let size: Int

    init(size: Int) { self.size = size }

    /// Bytes that a body takes: all of a large one's, since they may be one huge page.
    ///
    /// One that is larger than those that are kept counts as it is.
    func cost(_ count: Int) -> Int {
        count == 0 ? 0 : count > Self.largeSize ? max(count, size) : max(count, 4096)
    }

    func take(_ count: Int) -> RequestBody {
        guard count > Self.largeSize, count <= size else { return RequestBody(capacity: count) }
        return free.withLock { $0.popLast() } ?? RequestBody(capacity: size)
    }

    func give(_ body: RequestBody) {
        guard body.capacity == size else { return }
        body.reset()
        free.withLock { if $0.count < Self.kept { $0.append(body) } }
    }
}
