// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
internal import Synchronization

/// Calls something again and again, in a thread of its own.
package struct Ticker: ~Copyable, Sendable {
    private final class Flag: Sendable {
        let isOver = Atomic(false)
    }
    private let flag: Flag
    private let thread: Threads.Running

    /// Starts the thread; where the system refuses one, nothing is called.
    ///
    /// - Parameters:
    ///   - interval: between the starts of two calls.
    ///   - call: what is called, the first time after one interval.
    package init(_ interval: Duration, _ call: @escaping @Sendable () -> Void) {
        let flag = Flag()
        self.flag = flag
        thread = Threads.start(count: 1, orInline: false) { _ in
            let clock = ContinuousClock()
            var next = clock.now + interval
            while !flag.isOver.load(ordering: .relaxed) {
                if clock.now >= next {
                    call()
                    next = clock.now + interval
                }
                // Short, since whoever stops it waits for it.
                usleep(10_000)
            }
        }
    }

    /// Returns when the last call has.
    package consuming func stop() {
        flag.isOver.store(true, ordering: .relaxed)
        thread.wait()
    }
}
