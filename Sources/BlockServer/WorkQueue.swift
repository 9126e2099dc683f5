// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
internal import LinuxIO
internal import Synchronization

/// Threads for device I/O, each with an aligned buffer of its own, and the jobs that wait for them.
///
/// The queue needs no limit of its own: a connection has one request in work.
final class WorkQueue: @unchecked Sendable {
    /// A thread's memory: as much as one request may carry.
    typealias Job = @Sendable (_ memory: UnsafeMutableRawBufferPointer) -> Void

    private struct State {
        var jobs: [Job] = []
        var first = 0
        var isClosed = false
    }
    private let state = Mutex(State())
    private let wakeUp = Wakeup()
    /// Touched by the one who makes and closes the queue.
    private var threads: Threads.Running?

    /// Starts the threads.
    ///
    /// - Parameters:
    ///   - count: how many.
    ///   - memory: bytes of each one's buffer.
    init(threads count: Int, memory: Int) {
        threads = Threads.start(count: count, orInline: false) { [self] _ in
            let buffer = AlignedBuffer(count: memory)
            while let job = next() { job(buffer.bytes) }
        }
    }

    /// Adds a job.
    func add(_ job: @escaping Job) {
        state.withLock { $0.jobs.append(job) }
        wakeUp.post()
    }

    /// Waits until all jobs are done, and ends the threads.
    func close() {
        state.withLock { $0.isClosed = true }
        wakeUp.post()
        if let running = threads.take() { running.wait() }
    }

    private func next() -> Job? {
        while true {
            wakeUp.wait()
            let (job, isOver) = state.withLock { state -> (Job?, Bool) in
                guard state.first < state.jobs.count else { return (nil, state.isClosed) }
                let job = state.jobs[state.first]
                state.first += 1
                if state.first == state.jobs.count {
                    state.jobs.removeAll(keepingCapacity: true)
                    state.first = 0
                }
                return (job, false)
            }
            if let job { return job }
            if isOver {
                // For the next thread.
                wakeUp.post()
                return nil
            }
        }
    }
}

/// A counting semaphore (sem_overview(7)).
private final class Wakeup: @unchecked Sendable {
    private let semaphore: UnsafeMutablePointer<sem_t>

    init() {
        semaphore = .allocate(capacity: 1)
        sem_init(semaphore, 0, 0)
    }

    deinit {
        sem_destroy(semaphore)
        semaphore.deallocate()
    }

    func post() { sem_post(semaphore) }

    func wait() {
        while sem_wait(semaphore) != 0 && errno == EINTR {}
    }
}
