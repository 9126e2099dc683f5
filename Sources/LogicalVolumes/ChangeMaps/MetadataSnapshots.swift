// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import LinuxIO
internal import Synchronization

/// The metadata snapshots of thin pools that this process holds.
///
/// A pool has room for one metadata snapshot. A metadata snapshot that stays behind blocks every
/// other program that needs one. One lock guards reserving and releasing, so that a thread that
/// ends the process can release all of them.
package final class MetadataSnapshots: Sendable {
    /// The process's own; the thread that ends the process calls `releaseAll` first.
    package static let shared = MetadataSnapshots()

    private struct Held {
        let pool: ThinPool
        /// The block at which it starts; it identifies the metadata snapshot.
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
    /// It waits while another blkferry holds the pool's lock, and releases a metadata snapshot that
    /// a killed blkferry left behind.
    ///
    /// - Throws: also if another program holds the metadata snapshot.
    func reserve(
        _ pool: ThinPool, unless isCancelled: () -> Bool
    ) throws(IOError) -> MetadataSnapshot {
        let lock = try PoolLock(in: pool.lockDirectory, pool: pool.name, unless: isCancelled)
        let number = try state.withLock { state throws(IOError) in
            if state.isClosed || isCancelled() { throw .cancelled(pool.name) }
            let root = try Self.reserve(pool, lock)
            state.last += 1
            state.held[state.last] = Held(pool: pool, root: root, lock: lock)
            return state.last
        }
        return MetadataSnapshot(number, of: pool.name, in: self)
    }

    /// Releases the metadata snapshot that a killed blkferry left behind; `false` if there is none.
    ///
    /// - Throws: also if another blkferry uses the pool.
    func releaseLeftover(of pool: ThinPool) throws(IOError) -> Bool {
        var tries = 0
        let lock = try PoolLock(in: pool.lockDirectory, pool: pool.name) {
            // It is also called once after the lock was taken.
            tries += 1
            return tries > 2
        }
        guard let root = lock.recordedRoot else { return false }
        return try state.withLock { state throws(IOError) in
            guard !state.isClosed, try pool.heldRoot() == root else { return false }
            try pool.releaseSnapshot(lock)
            return true
        }
    }

    private static func reserve(_ pool: ThinPool, _ lock: PoolLock) throws(IOError) -> Int {
        if let root = try pool.status().heldRoot {
            guard lock.recordedRoot == root else { throw pool.isHeld }
            try pool.releaseSnapshot(lock)
        }
        try lock.clear()
        // The kernel refuses if another program reserved one in between.
        try pool.reserveSnapshot(lock)
        let root: Int?
        do throws(IOError) {
            root = try pool.status().heldRoot
            if lock.recordedRoot == nil && root != nil {
                throw .noChangeMap(pool.name, "its lock cannot say which metadata snapshot it is")
            }
        } catch {
            try? pool.releaseSnapshot(lock)
            throw error
        }
        guard let root, root == lock.recordedRoot else { throw isReleased(pool, lock) }
        return root
    }

    /// The error if another program released this metadata snapshot; it empties the lock's file,
    /// since the recorded root may soon belong to another metadata snapshot.
    private static func isReleased(_ pool: ThinPool, _ lock: PoolLock) -> IOError {
        try? lock.clear()
        return .noChangeMap(pool.name, "another program has released its metadata snapshot")
    }

    /// Releases one; `false` if it was released before.
    ///
    /// - Throws: if the release failed, or another program had released it.
    fileprivate func release(_ number: Int) throws(IOError) -> Bool {
        try state.withLock { state throws(IOError) in
            guard let held = state.held.removeValue(forKey: number) else { return false }
            try Self.release(held)
            return true
        }
    }

    private static func release(_ held: Held) throws(IOError) {
        let pool = held.pool
        guard try pool.heldRoot() == held.root else { throw isReleased(pool, held.lock) }
        try pool.releaseSnapshot(held.lock)
    }

    /// Releases all before the process ends, and refuses later reservations.
    ///
    /// Call it from a thread that waits for signals (sigwait(3)), not from a signal handler. It
    /// blocks while another thread reserves or releases one.
    ///
    /// - Returns: the errors of those that could not be released.
    @discardableResult
    package func releaseAll() -> [IOError] {
        state.withLock { state in
            state.isClosed = true
            let held = state.held.values
            state.held = [:]
            return held.compactMap { one in
                do throws(IOError) {
                    try Self.release(one)
                    return nil
                } catch { return error }
            }
        }
    }
}

/// A held metadata snapshot, which its owner's end releases at the latest.
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

    /// Releases the metadata snapshot; throws if that failed, or it was gone before.
    consuming func release() throws(IOError) {
        guard try holder.release(number) else { throw .cancelled(pool) }
    }
}
