// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
internal import SystemPackage

/// Plain threads for blocking I/O, which would stall Swift's cooperative pool of one thread a core.
package enum Threads {
    /// Starts threads with all signals blocked.
    ///
    /// - Parameters:
    ///   - orInline: runs `body` once in this thread if the system refuses every thread.
    ///   - body: gets an index from 0. It must not rely on all threads, because the system may
    ///     refuse some.
    package static func start(
        count: Int, orInline: Bool = true, _ body: @escaping @Sendable (_ index: Int) -> Void
    ) -> Running {
        var threads: [pthread_t] = []
        threads.reserveCapacity(count)
        for index in 0..<count {
            guard let thread = create(nil, { body(index) }) else {
                // The limit of threads is reached. Fewer threads do all the work, but more slowly.
                if threads.isEmpty && orInline { body(index) }
                break
            }
            threads.append(thread)
        }
        return Running(threads: threads)
    }

    /// Starts a thread for a call that may never return; `false` if the system refuses the thread.
    ///
    /// The thread has all signals blocked and a stack of 512 KiB. It ends when the call
    /// returns, or with the process.
    package static func startDetached(_ body: @escaping @Sendable () -> Void) -> Bool {
        var attributes = pthread_attr_t()
        pthread_attr_init(&attributes)
        defer { pthread_attr_destroy(&attributes) }
        pthread_attr_setdetachstate(&attributes, Int32(PTHREAD_CREATE_DETACHED))
        // Many threads may hang at once, and a limit of address space counts whole stacks.
        pthread_attr_setstacksize(&attributes, 512 << 10)
        return create(&attributes, body) != nil
    }

    /// Calls a function in another thread with all signals blocked, so that a signal can end the
    /// process.
    ///
    /// A signal handler does not run in a thread that waits for a device.
    package static func apart<Result: Sendable>(
        _ body: @escaping @Sendable () -> Result
    ) -> Result {
        let box = Guarded<Result?>(nil)
        start(count: 1) { _ in
            let result = body()
            box.withLock { $0 = result }
        }.wait()
        guard let value = box.withLock({ $0 }) else {
            preconditionFailure("the thread has ended without a result")
        }
        return value
    }

    /// Blocks all signals in the thread, so that only the thread that waits for them gets them.
    private static func create(
        _ attributes: UnsafePointer<pthread_attr_t>?, _ body: @escaping @Sendable () -> Void
    ) -> pthread_t? {
        var all = sigset_t()
        var before = sigset_t()
        sigfillset(&all)
        pthread_sigmask(SIG_SETMASK, &all, &before)
        defer { pthread_sigmask(SIG_SETMASK, &before, nil) }
        var thread = pthread_t()
        let box = Unmanaged.passRetained(Start(body))
        let result = pthread_create(
            &thread, attributes,
            { argument in
                guard let argument else { return nil }
                Unmanaged<Start>.fromOpaque(argument).takeRetainedValue().body()
                return nil
            }, box.toOpaque())
        guard result == 0 else {
            box.release()
            return nil
        }
        return thread
    }

    private final class Start: Sendable {
        let body: @Sendable () -> Void
        init(_ body: @escaping @Sendable () -> Void) { self.body = body }
    }

    /// Throws unless the system allows `count` threads at once.
    package static func require(_ count: Int) throws(IOError) {
        let running = start(count: count, orInline: false) { _ in }
        let started = running.count
        running.wait()
        guard started == count else {
            throw IOError(
                "threads", "start", .resourceTemporarilyUnavailable,
                advice: "ulimit -u and -v limit them, and pids.max of a control group.")
        }
    }

    /// Started threads.
    ///
    /// If no caller waits for them, the C library frees their stacks when they end.
    package struct Running: ~Copyable {
        private var threads: [pthread_t]

        fileprivate init(threads: [pthread_t]) { self.threads = threads }

        deinit {
            for thread in threads { pthread_detach(thread) }
        }

        package var count: Int { threads.count }

        package var isEmpty: Bool { threads.isEmpty }

        package consuming func wait() {
            for thread in threads { pthread_join(thread, nil) }
            threads = []
        }
    }
}
