// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import LinuxIO
internal import NIOCore
internal import Synchronization

/// The bytes that all requests in work may take together; further requests wait for them.
///
/// One client gets a quarter of them at most, so that a client that neither sends nor reads blocks
/// only itself.
final class MemoryBudget: Sendable {
    private struct Waiter {
        var bytes: Int
        var client: String?
        var owner: ObjectIdentifier?
        var grant: @Sendable (_ isGranted: Bool) -> Void
    }
    private struct State {
        var free: Int
        var taken: [String: Int] = [:]
        var waiters: [Waiter] = []
    }
    private let state: Mutex<State>
    private let total: Int
    private let share: Int

    init(bytes: Int) {
        total = bytes
        share = bytes / 4
        state = Mutex(State(free: bytes))
    }

    /// Limits a request to the share of one client.
    private func bounded(_ bytes: Int, _ client: String?) -> Int {
        min(bytes, client == nil ? total : share)
    }

    /// Takes bytes, at most the client's share, and calls `grant` on any thread when they are
    /// available.
    ///
    /// - Parameters:
    ///   - client: `nil` for a client that is alone, as over ssh.
    ///   - owner: the connection, for `forget`.
    ///   - limit: how many requests of the client may wait.
    /// - Returns: `false` if more of them wait; `grant` is not called then.
    func take(
        _ bytes: Int, for client: String?, owner: ObjectIdentifier? = nil, limit: Int = .max,
        then grant: @escaping @Sendable (_ isGranted: Bool) -> Void
    ) -> Bool {
        let waiter = Waiter(
            bytes: bounded(bytes, client), client: client, owner: owner, grant: grant)
        let granted: [Waiter]? = state.withLock { state in
            state.waiters.append(waiter)
            let granted = grantable(&state)
            guard state.waiters.count > limit,
                state.waiters.count(where: { $0.client == client }) > limit
            else { return granted }
            state.waiters.removeLast()
            return nil
        }
        for waiter in granted ?? [] { waiter.grant(true) }
        return granted != nil
    }

    /// Takes bytes if they are available now.
    func takeNow(_ bytes: Int, for client: String?) -> Bool {
        take(bytes, for: client, limit: 0) { _ in }
    }

    /// Ends the wait of a closed connection: `grant` gets `false`.
    func forget(_ owner: ObjectIdentifier) {
        let gone = state.withLock { state in
            let gone = state.waiters.filter { $0.owner == owner }
            if !gone.isEmpty { state.waiters.removeAll { $0.owner == owner } }
            return gone
        }
        for waiter in gone { waiter.grant(false) }
    }

    /// Gives back the number of bytes that was passed to `take`.
    func give(_ bytes: Int, of client: String?) {
        guard bytes > 0 else { return }
        let granted = state.withLock { state in
            let bytes = bounded(bytes, client)
            state.free += bytes
            if let client {
                let left = state.taken[client, default: 0] - bytes
                state.taken[client] = left > 0 ? left : nil
            }
            return grantable(&state)
        }
        for waiter in granted { waiter.grant(true) }
    }

    /// Takes the bytes for all waiting requests that can have them now.
    ///
    /// A request of a client whose share is used up holds up only that client. A request that waits
    /// for bytes of other clients gets the next free ones.
    private func grantable(_ state: inout State) -> [Waiter] {
        var granted: [Waiter] = []
        var left: [Waiter] = []
        var isFull = false
        var waiting: Set<String> = []
        for waiter in state.waiters {
            if let client = waiter.client {
                let isShareTaken =
                    waiting.contains(client)
                    || state.taken[client, default: 0] + waiter.bytes > share
                if isShareTaken {
                    waiting.insert(client)
                    left.append(waiter)
                    continue
                }
            }
            guard !isFull, waiter.bytes <= state.free else {
                isFull = true
                left.append(waiter)
                continue
            }
            state.free -= waiter.bytes
            if let client = waiter.client { state.taken[client, default: 0] += waiter.bytes }
            granted.append(waiter)
        }
        state.waiters = left
        return granted
    }

    var free: Int { state.withLock { $0.free } }
}

/// A request's body, in memory that is aligned for direct I/O.
///
/// It is safe to send, because one thread at a time uses it: the event loop fills it, and then a
/// thread of the queue reads it.
final class RequestBody: @unchecked Sendable {
    private let buffer: AlignedBuffer
    private(set) var count = 0
    let capacity: Int

    init?(capacity: Int) {
        guard let buffer = AlignedBuffer(ifAvailable: max(1, capacity)) else { return nil }
        self.capacity = capacity
        self.buffer = buffer
    }

    var bytes: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(buffer.bytes)[..<count])
    }

    var room: Int { capacity - count }

    /// Appends a part, which must fit.
    func append(_ part: ByteBuffer) {
        precondition(part.readableBytes <= room)
        part.withUnsafeReadableBytes { bytes in
            UnsafeMutableRawBufferPointer(rebasing: buffer.bytes[count..<count + bytes.count])
                .copyMemory(from: bytes)
        }
        count += part.readableBytes
    }

    /// Empties the buffer for another request, or for the next piece of this one.
    func reset() { count = 0 }
}

/// Keeps the memory of large bodies for reuse: clearing fresh pages costs as much as copying.
final class BodyPool: Sendable {
    private let free = Mutex<[RequestBody]>([])
    private static let kept = 8
    /// Smaller bodies are allocated each time.
    private static let largeSize = 64 << 10
    private let size: Int

    init(size: Int) { self.size = size }

    /// Bytes of the budget for a body; a large one counts whole, since its memory may be a huge
    /// page.
    ///
    /// A small one costs nothing. Otherwise requests without their bodies could keep other requests
    /// of the same client from opening and ending sessions.
    func cost(_ count: Int) -> Int { count <= 4096 ? 0 : count > Self.largeSize ? size : count }

    func take(_ count: Int) -> RequestBody? {
        guard count > Self.largeSize else { return RequestBody(capacity: count) }
        return free.withLock { $0.popLast() } ?? RequestBody(capacity: size)
    }

    func give(_ body: RequestBody) {
        guard body.capacity == size else { return }
        body.reset()
        free.withLock { if $0.count < Self.kept { $0.append(body) } }
    }
}
