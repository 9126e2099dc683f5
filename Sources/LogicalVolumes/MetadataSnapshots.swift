// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Synchronization

/// The metadata snapshots of thin pools that this process holds.
///
/// A pool has room for one, for everybody: one that stays is in the way of all who want one later.
/// They are reserved and released under one lock, so that whoever ends the process can release
/// all, and knows of each.
package final class MetadataSnapshots: Sendable {
    /// Those of the process; whoever ends it calls `releaseAll` first.
    package static let shared = MetadataSnapshots()

    private struct Held {
        let pool: ThinPool
        /// Where it starts, which tells it from another one.
        let root: Int
        let lock: PoolLock
    }

    private struct State {
        var held: [Int: Held] = [:]
        var last = 0
        var isClosed = false
    }

    private let state = Mutex(State())

    package init() {}

    /// Reserves the metadata snapshot of a pool.
    ///
    /// Waits for another blkferry that has it. What one that was killed has left is released.
    ///
    /// - Parameters:
    ///   - pool: the pool.
    ///   - isOver: asked now and then.
    /// - Returns: what releases it.
    /// - Throws: where it cannot be had, above all where somebody else holds one.
    func reserve(
        _ pool: ThinPool, unless isOver: () -> Bool
    ) throws(ChangeMapError) -> MetadataSnapshot {
        let lock = try PoolLock(in: pool.lockDirectory, pool: pool.name, unless: isOver)
        let number = try state.withLock { state throws(ChangeMapError) in
            if state.isClosed || isOver() { throw .cancelled(pool.name) }
            let root = try Self.reserve(pool, lock, unless: isOver)
            state.last += 1
            state.held[state.last] = Held(pool: pool, root: root, lock: lock)
            return state.last
        }
        return MetadataSnapshot(number, of: pool.name, in: self)
    }

    /// Releases what one that was killed has left, unless another blkferry is at work in the pool.
    ///
    /// - Parameter pool: the pool.
    /// - Returns: whether there was something.
    /// - Throws: where that cannot be told, or it cannot be released.
    func releaseLeftover(of pool: ThinPool) throws(ChangeMapError) -> Bool {
        var tries = 0
        let lock = try PoolLock(in: pool.lockDirectory, pool: pool.name) {
            tries += 1
            return tries > 1
        }
        guard let root = lock.recordedRoot else { return false }
        return try state.withLock { state throws(ChangeMapError) in
            guard !state.isClosed, try pool.heldRoot() == root else { return false }
            try pool.releaseSnapshot(lock)
            return true
        }
    }

    private static func reserve(
        _ pool: ThinPool, _ lock: PoolLock, unless isOver: () -> Bool
    ) throws(ChangeMapError) -> Int {
        if let root = try pool.status(unless: isOver).heldRoot {
            guard lock.recordedRoot == root else { throw pool.isHeld }
            try pool.releaseSnapshot(lock)
        }
        try lock.clear()
        // The kernel refuses where somebody has been faster.
        try pool.reserveSnapshot(lock)
        let root: Int?
        do throws(ChangeMapError) {
            root = try pool.status(unless: { false }).heldRoot
            if lock.recordedRoot == nil && root != nil {
                throw ChangeMapError(pool.name, "its lock cannot say which metadata snapshot it is")
            }
        } catch {
            try? pool.releaseSnapshot(lock)
            throw error
        }
        guard let root, root == lock.recordedRoot else { throw isReleased(pool, lock) }
        return root
    }

    /// Somebody has released what was ours; what the file says of it may soon be true of another one.
    private static func isReleased(_ pool: ThinPool, _ lock: PoolLock) -> ChangeMapError {
        try? lock.clear()
        return ChangeMapError(pool.name, "somebody else has released its metadata snapshot")
    }

    /// Releases one.
    ///
    /// - Returns: `false` where it was released before.
    /// - Throws: where it is still there, or somebody else has released it.
    fileprivate func release(_ number: Int) throws(ChangeMapError) -> Bool {
        try state.withLock { state throws(ChangeMapError) in
            guard let held = state.held.removeValue(forKey: number) else { return false }
            try Self.release(held)
            return true
        }
    }

    private static func release(_ held: Held) throws(ChangeMapError) {
        let pool = held.pool
        guard try pool.heldRoot() == held.root else { throw isReleased(pool, held.lock) }
        try pool.releaseSnapshot(held.lock)
    }

    /// Releases all, and reserves none any more: for whoever ends the process.
    ///
    /// Not for a signal's handler but for a thread that waits for signals (sigwait(3)). It waits
    /// for whoever is about to reserve or release one.
    ///
    /// - Returns: what could not be released.
    @discardableResult
    package func releaseAll() -> [ChangeMapError] {
        state.withLock { state in
            state.isClosed = true
            let held = state.held.values
            state.held = [:]
            return held.compactMap { one in
                do throws(ChangeMapError) {
                    try Self.release(one)
                    return nil
                } catch { return error }
            }
        }
    }
}

/// A metadata snapshot that is held, and released with its owner at the latest.
struct MetadataSnapshot: ~Copyable {
    private let number: Int
    private let pool: String
    private let holder: MetadataSnapshots

    fileprivate init(_ number: Int, of pool: String, in holder: MetadataSnapshots) {
        self.number = number
        self.pool = pool
        self.holder = holder
    }

    deinit { _ = try? holder.release(number) }

    /// Releases it.
    ///
    /// - Throws: where it is still there, or was not there all the time.
    consuming func release() throws(ChangeMapError) {
        guard try holder.release(number) else { throw .cancelled(pool) }
    }
}
