// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc

/// State behind a lock, whose changes threads can wait for; `Mutex` has no such wait.
///
/// Waiting blocks the thread, so it is for the threads of `Threads` only.
package final class Guarded<State: Sendable>: @unchecked Sendable {
    // Unchecked: every use of `state` and `waiting` holds `lock`.
    private var state: State
    /// Threads in `wait`.
    private var waiting = 0
    /// The address of a lock must not change.
    private let lock: UnsafeMutablePointer<pthread_mutex_t>
    private let changed: UnsafeMutablePointer<pthread_cond_t>

    package init(_ state: State) {
        self.state = state
        lock = .allocate(capacity: 1)
        changed = .allocate(capacity: 1)
        pthread_mutex_init(lock, nil)
        var attributes = pthread_condattr_t()
        pthread_condattr_init(&attributes)
        // A change of the time of day must not change how long a thread waits.
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
        pthread_cond_init(changed, &attributes)
        pthread_condattr_destroy(&attributes)
    }

    deinit {
        pthread_cond_destroy(changed)
        pthread_mutex_destroy(lock)
        changed.deallocate()
        lock.deallocate()
    }

    /// Calls a function with the lock held; every waiting thread then looks at the state again.
    package func withLock<Result, Failure: Error>(
        _ body: (inout State) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        pthread_mutex_lock(lock)
        defer {
            if waiting > 0 { pthread_cond_broadcast(changed) }
            pthread_mutex_unlock(lock)
        }
        return try body(&state)
    }

    /// Waits until a function, called with the lock held and again after each change, returns a
    /// value.
    ///
    /// - Parameters:
    ///   - deadline: when to return `nil`.
    ///   - body: changes the state only if it returns a value.
    package func wait<Result>(
        until deadline: ContinuousClock.Instant, _ body: (inout State) -> Result?
    ) -> Result? {
        pthread_mutex_lock(lock)
        defer { pthread_mutex_unlock(lock) }
        while true {
            if let result = body(&state) {
                if waiting > 0 { pthread_cond_broadcast(changed) }
                return result
            }
            let rest = deadline - ContinuousClock.now
            guard rest > .zero else { return nil }
            waiting += 1
            var end = monotonicTime(after: min(rest, .seconds(3600)))
            pthread_cond_timedwait(changed, lock, &end)
            waiting -= 1
        }
    }

    /// Waits as above, but until at most 20 ms after a cancellation in place of a deadline.
    ///
    /// - Parameters:
    ///   - isCancelled: when to return `nil`; called without the lock, every 20 ms.
    ///   - body: changes the state only if it returns a value.
    package func wait<Result>(
        unless isCancelled: () -> Bool, _ body: (inout State) -> Result?
    ) -> Result? {
        var next = ContinuousClock.now
        while true {
            if let result = wait(until: next, body) { return result }
            if isCancelled() { return nil }
            next = .now + cancellationInterval
        }
    }

    /// Waits until a function returns `true`, without a timeout.
    package func wait(_ body: (inout State) -> Bool) {
        while true {
            let isTrue: Void? = wait(until: .now + .seconds(3600)) { body(&$0) ? () : nil }
            if isTrue != nil { return }
        }
    }

    /// A time of `CLOCK_MONOTONIC`.
    private func monotonicTime(after rest: Duration) -> timespec {
        var now = timespec()
        clock_gettime(CLOCK_MONOTONIC, &now)
        let (seconds, attoseconds) = rest.components
        let nanoseconds = now.tv_nsec + Int(attoseconds / 1_000_000_000)
        return timespec(
            tv_sec: now.tv_sec + Int(seconds) + nanoseconds / 1_000_000_000,
            tv_nsec: nanoseconds % 1_000_000_000)
    }
}
