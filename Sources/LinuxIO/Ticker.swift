// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

/// Calls a function at regular intervals in its own thread.
package struct Ticker: ~Copyable, Sendable {
    private let isStopped = Guarded(false)
    private let thread: Threads.Running

    /// Starts the thread; if the system refuses one, `call` is never called.
    ///
    /// - Parameter interval: the time before the first call, and from the end of a call to the
    ///   next.
    package init(_ interval: Duration, _ call: @escaping @Sendable () -> Void) {
        thread = Threads.start(count: 1, orInline: false) { [isStopped] _ in
            while isStopped.wait(until: .now + interval, { $0 ? true : nil }) == nil { call() }
        }
    }

    package consuming func stop() {
        isStopped.withLock { $0 = true }
        thread.wait()
    }
}
