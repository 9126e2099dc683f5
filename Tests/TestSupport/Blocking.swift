// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Dispatch
internal import Foundation
internal import Synchronization
package import Testing

/// Runs the tests of a suite on threads that may wait.
///
/// A test that waits for a program keeps its thread, and Swift's own pool has as many as there are
/// processors: they would idle while all tests wait.
package struct BlockingTrait: SuiteTrait, TestTrait, TestScoping {
    package var isRecursive: Bool { true }

    package func provideScope(
        for test: Test, testCase: Test.Case?, performing function: @Sendable () async throws -> Void
    ) async throws {
        try await withTaskExecutorPreference(WaitingThreads.shared) { try await function() }
    }
}

extension Trait where Self == BlockingTrait {
    /// The tests of this suite wait: for programs, devices or connections.
    package static var blocking: Self { Self() }
}

/// Threads for the tests that wait, one more than there are processors, because most of them wait.
///
/// With twice as many as processors, the programs that the tests run are sometimes too slow for the
/// tests' timeouts. The latest job runs first, so that a suite that has begun ends before others begin.
private final class WaitingThreads: TaskExecutor {
    static let shared = WaitingThreads(
        count: ProcessInfo.processInfo.activeProcessorCount + 1)

    private let jobs = Mutex<[UnownedJob]>([])
    private let ready = DispatchSemaphore(value: 0)

    private init(count: Int) {
        for _ in 0..<count {
            Thread.detachNewThread { [self] in
                while true { runNext() }
            }
        }
    }

    func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        jobs.withLock { $0.append(job) }
        ready.signal()
    }

    private func runNext() {
        ready.wait()
        let job = jobs.withLock { $0.removeLast() }
        job.runSynchronously(on: asUnownedTaskExecutor())
    }
}
