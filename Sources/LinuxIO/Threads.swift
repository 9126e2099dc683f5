// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc

/// Plain threads for blocking I/O.
///
/// Device I/O never runs on Swift's cooperative pool: that has as many threads as the machine has
/// cores, and one blocking read would hold one of them up.
package enum Threads {
    /// Starts threads, in which all signals are blocked, and returns at once.
    ///
    /// - Parameters:
    ///   - count: how many.
    ///   - orInline: do the work in this thread where the system refuses to start any.
    ///   - body: what each does; it gets its number, from 0. It must not rely on all of them
    ///     running: where the system refuses more threads, fewer are started.
    /// - Returns: a handle whose `wait()` returns when all of them have ended.
    package static func start(
        count: Int, orInline: Bool = true, _ body: @escaping @Sendable (_ index: Int) -> Void
    ) -> Running {
        // Signals are for the thread that waits for them.
        var all = sigset_t()
        var before = sigset_t()
        sigfillset(&all)
        pthread_sigmask(SIG_SETMASK, &all, &before)
        defer { pthread_sigmask(SIG_SETMASK, &before, nil) }
        var threads: [pthread_t] = []
        threads.reserveCapacity(count)
        for index in 0..<count {
            var thread = pthread_t()
            let box = Unmanaged.passRetained(Start { body(index) })
            let result = pthread_create(
                &thread, nil,
                { argument in
                    guard let argument else { return nil }
                    Unmanaged<Start>.fromOpaque(argument).takeRetainedValue().body()
                    return nil
                }, box.toOpaque())
            guard result == 0 else {
                // The limit of threads is reached: fewer do all the work as well, only slower.
                box.release()
                if threads.isEmpty && orInline { body(index) }
                break
            }
            threads.append(thread)
        }
        return Running(threads: threads)
    }

    private final class Start: Sendable {
        let body: @Sendable () -> Void
        init(_ body: @escaping @Sendable () -> Void) { self.body = body }
    }

    /// Threads that were started and must be waited for.
    package struct Running: ~Copyable {
        fileprivate let threads: [pthread_t]

        /// Whether none was started.
        package var isEmpty: Bool { threads.isEmpty }

        /// Waits until every thread has ended.
        package consuming func wait() {
            for thread in threads { pthread_join(thread, nil) }
        }
    }
}
