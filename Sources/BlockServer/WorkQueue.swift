// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
internal import LinuxIO
internal import Synchronization

/// Threads for device I/O, each with its own aligned buffer, and the jobs that wait for them.
///
/// Every second thread is reserved for jobs of sessions, so that other jobs, such as downloads,
/// never take more than half of the threads. One device never gets all threads that its jobs could
/// use, since it may hang. The clients take turns, so that one with many requests delays another by
/// one job for each thread. One client never has all threads that are not reserved, whatever its
/// jobs are for, so that all its devices together do not stop others.
///
/// The queue needs no limit of its own: a connection has one request in work, and requests of a
/// closed connection end at once, except those of sessions (`RequestHandler.complete`).
final class WorkQueue: Sendable {
    /// The thread's buffer is as large as one request may be.
    typealias Job = @Sendable (_ memory: UnsafeMutableRawBufferPointer) -> Void

    private struct Entry {
        var job: Job
        /// The name of the device that the job works on; `nil` for a job that cannot take long.
        var subject: ByteString?
        /// The client whose turn the job takes; empty for none.
        var client: String
        var isOfSession: Bool
    }
    private struct Fifo<Element> {
        private var elements: [Element] = []
        /// Number of taken elements, which are removed together.
        private var first = 0
        private static var mostTaken: Int { 1024 }

        var count: Int { elements.count - first }

        mutating func add(_ element: Element) { elements.append(element) }

        mutating func take() -> Element? {
            guard first < elements.count else { return nil }
            let element = elements[first]
            first += 1
            if first == elements.count || first >= Self.mostTaken {
                elements.removeFirst(first)
                first = 0
            }
            return element
        }
    }
    /// Waiting jobs: those of one client in their order, one of each client in turn.
    private struct Line {
        private var jobs: [String: Fifo<Entry>] = [:]
        /// The clients with waiting jobs.
        private var turns = Fifo<String>()
        private(set) var count = 0

        mutating func add(_ job: Entry) {
            if jobs[job.client] == nil { turns.add(job.client) }
            jobs[job.client, default: Fifo()].add(job)
            count += 1
        }

        /// The next job, but of no client that has as many threads as it may have.
        mutating func take(_ busy: [String: Int] = [:], most: Int = .max) -> Entry? {
            for _ in 0..<turns.count {
                guard let client = turns.take() else { return nil }
                guard busy[client, default: 0] < most else {
                    turns.add(client)
                    continue
                }
                guard let job = jobs[client]?.take() else { return nil }
                if jobs[client]?.count == 0 { jobs[client] = nil } else { turns.add(client) }
                count -= 1
                return job
            }
            return nil
        }
    }
    private struct State {
        var ofSessions = Line()
        var others = Line()
        /// Whether a shared thread takes a session's job next.
        var isTurnOfSessions = false
        /// Threads reserved for sessions, and how many of them are busy.
        var kept = 0
        var busyKept = 0
        /// Shared threads that each client has, and the most that one may have.
        var busyShared: [String: Int] = [:]
        var mostShared = Int.max
        /// Wakeups of shared threads that found only jobs of clients without a share left.
        var unusedWakeups = 0
        /// Jobs of each subject that wait for a thread or have one.
        var admitted: [ByteString: Int] = [:]
        /// Jobs of subjects that have reached their share.
        var parked: [ByteString: Line] = [:]
        var isClosed = false
        var isIdle = false

        /// Whether jobs of sessions wait while all reserved threads are busy.
        ///
        /// A reserved thread that has not started its job yet does not count as busy. Otherwise one
        /// device would take the shared threads.
        var needsHelp: Bool { busyKept >= kept && ofSessions.count > 0 }

        /// Takes a job for a shared thread, which helps with jobs of sessions if `helps`.
        mutating func takeShared(helps: Bool) -> Entry? {
            // A closed queue ends once all jobs are done.
            let most = isClosed ? .max : mostShared
            var entry: Entry?
            if isTurnOfSessions && helps { entry = ofSessions.take(busyShared, most: most) }
            if entry == nil { entry = others.take(busyShared, most: most) }
            if entry == nil && helps { entry = ofSessions.take(busyShared, most: most) }
            isTurnOfSessions.toggle()
            if let entry {
                // Jobs without a client have no limit.
                if !entry.client.isEmpty { busyShared[entry.client, default: 0] += 1 }
            } else {
                let waiting = others.count + (helps ? ofSessions.count : 0)
                unusedWakeups = min(unusedWakeups + 1, waiting)
            }
            return entry
        }

        /// Ends a job of a shared thread.
        ///
        /// - Returns: whether a thread must look again for jobs of clients without a share left.
        mutating func leaveShared(_ client: String) -> Bool {
            guard let busy = busyShared[client] else { return false }
            busyShared[client] = busy > 1 ? busy - 1 : nil
            guard unusedWakeups > 0 else { return false }
            unusedWakeups -= 1
            return true
        }
    }
    private let state = Mutex(State())
    private let wakeUp = Wakeup()
    private let wakeUpKept = Wakeup()
    private let threads = Mutex<Threads.Running?>(nil)
    /// Threads that one subject may have at once, with and without sessions.
    private let share: (ofSessions: Int, others: Int)

    init(threads count: Int, memory: Int) {
        // Fewer threads do the same work more slowly; a server without threads ends.
        var buffers = [ThreadBuffer(AlignedBuffer(count: memory))]
        while buffers.count < count, let buffer = AlignedBuffer(ifAvailable: memory) {
            buffers.append(ThreadBuffer(buffer))
        }
        let all = buffers
        let (kept, others) = (all.count / 2, all.count - all.count / 2)
        // Both shares together leave one thread free.
        share = (max(1, kept + others / 2 - 1), max(1, others / 2))
        let started = threads.withLock { threads in
            let running = Threads.start(count: all.count, orInline: false) { [self] index in
                let isKept = index % 2 == 1
                while let entry = next(isKept: isKept) {
                    entry.job(all[index].buffer.bytes)
                    finish(entry, wasKept: isKept)
                }
            }
            let started = running.count
            threads = consume running
            return started
        }
        state.withLock { state in
            state.isIdle = started == 0
            state.kept = started / 2
            state.mostShared = max(1, started - started / 2 - 1)
        }
    }

    /// Whether the system has refused to start any thread.
    var isIdle: Bool { state.withLock { $0.isIdle } }

    private final class ThreadBuffer: Sendable {
        let buffer: AlignedBuffer
        init(_ buffer: consuming AlignedBuffer) { self.buffer = buffer }
    }

    /// - Parameters:
    ///   - subject: name of the device that the job works on; `nil` if it cannot take long.
    ///   - client: takes turns with other clients, and leaves them a thread; empty for a job that
    ///     cannot take long.
    func add(
        isOfSession: Bool = false, on subject: String? = nil, for client: String = "",
        _ job: @escaping Job
    ) {
        let subject = subject.map { ByteString($0) }
        let entry = Entry(job: job, subject: subject, client: client, isOfSession: isOfSession)
        wake(
            state.withLock { state -> (kept: Bool, others: Bool) in
                guard let subject else { return Self.admit(entry, &state) }
                let most = isOfSession ? share.ofSessions : share.others
                guard state.admitted[subject, default: 0] < most else {
                    state.parked[subject, default: Line()].add(entry)
                    return (false, false)
                }
                state.admitted[subject, default: 0] += 1
                return Self.admit(entry, &state)
            })
    }

    private static func admit(_ entry: Entry, _ state: inout State) -> (kept: Bool, others: Bool) {
        guard entry.isOfSession else {
            state.others.add(entry)
            return (false, true)
        }
        state.ofSessions.add(entry)
        return (true, state.needsHelp || state.isClosed)
    }

    private func wake(_ threads: (kept: Bool, others: Bool)) {
        if threads.kept { wakeUpKept.post() }
        if threads.others { wakeUp.post() }
    }

    /// Releases the share of a finished job, for the next job of the same subject.
    private func finish(_ entry: Entry, wasKept: Bool) {
        if !wasKept && state.withLock({ $0.leaveShared(entry.client) }) { wakeUp.post() }
        wake(
            state.withLock { state -> (kept: Bool, others: Bool) in
                if wasKept { state.busyKept -= 1 }
                guard let subject = entry.subject else { return (false, false) }
                if let next = state.parked[subject]?.take() {
                    if state.parked[subject]?.count == 0 { state.parked[subject] = nil }
                    return Self.admit(next, &state)
                }
                let left = state.admitted[subject, default: 1] - 1
                state.admitted[subject] = left > 0 ? left : nil
                return (false, false)
            })
    }

    func close() {
        let unused = state.withLock { state in
            state.isClosed = true
            defer { state.unusedWakeups = 0 }
            return state.unusedWakeups
        }
        for _ in 0...unused { wakeUp.post() }
        wakeUpKept.post()
        if let running = threads.withLock({ $0.take() }) { running.wait() }
    }

    private func next(isKept: Bool) -> Entry? {
        let wakeUp = isKept ? wakeUpKept : wakeUp
        while true {
            // Another thread may have taken the job of this wakeup.
            wakeUp.wait()
            let (entry, isAtEnd, needsHelp) = state.withLock { state -> (Entry?, Bool, Bool) in
                let entry: Entry?
                // The shared threads help when the reserved ones are not enough.
                let helps = state.needsHelp || state.isClosed
                if isKept {
                    entry = state.ofSessions.take()
                    if entry != nil { state.busyKept += 1 }
                } else {
                    entry = state.takeShared(helps: helps)
                }
                return (entry, entry == nil && state.isClosed, isKept && state.needsHelp)
            }
            if needsHelp { self.wakeUp.post() }
            if let entry {
                // The wakeup may have been meant for another job, which still waits.
                if !isKept && entry.isOfSession { wakeUp.post() }
                return entry
            }
            if isAtEnd {
                wakeUp.post()
                return nil
            }
        }
    }
}

/// A counting semaphore.
///
/// It is safe to share: threads may call sem_post(3) and sem_wait(3) at the same time, and the
/// pointer is constant.
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
