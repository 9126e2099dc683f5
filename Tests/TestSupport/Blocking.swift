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

/// As many threads as there are processors, beside Swift's own: with twice as many, what a test waits
/// for comes too late now and then.
///
/// What came last is run first: what has begun goes on before more begins, so that a suite whose tests
/// run one after the other does not wait for all others each time.
private final class WaitingThreads: TaskExecutor {
    static let shared = WaitingThreads(count: ProcessInfo.processInfo.activeProcessorCount)

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
