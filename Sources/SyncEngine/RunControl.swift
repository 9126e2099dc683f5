// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Synchronization

/// Lets the caller watch and cancel a run; each figure is correct, but not all are of one moment.
package final class RunControl: Sendable {
    package enum Phase: Int, Sendable {
        case sync
        case compare
        case flush
        case verify
    }

    package struct Progress: Hashable, Sendable {
        package var phase: Phase
        /// Bytes of this phase that need no more work.
        package var done: Int
        /// All bytes of this phase.
        package var total: Int
        /// Bytes found to differ so far.
        package var different: Int
        /// Since the start of the phase.
        package var seconds: Double
    }

    private struct Stage {
        var phase = Phase.sync
        var total = 0
        var start = ContinuousClock().now
    }

    /// Why the run is to end early; the first reason stays.
    private enum End: Int {
        case none
        case cancelled
        case stopped
    }

    private let end = Atomic(End.none.rawValue)
    /// Bytes of progress in a phase at which the run stops; `nil` for no such end.
    private let limit: Int?
    private let stage = Mutex(Stage())
    private let done = Atomic(0)
    private let different = Atomic(0)

    /// - Parameter limit: bytes of progress in a phase at which the run stops, for tests.
    package init(stopsAt limit: Int? = nil) { self.limit = limit }

    /// Ends the run after the windows in progress.
    package func cancel() { set(.cancelled) }

    /// Does the same, as the user has asked for in advance.
    package func stop() { set(.stopped) }

    /// Whether the run is to end early, for either reason.
    package var isCancelled: Bool { end.load(ordering: .relaxed) != End.none.rawValue }

    /// Whether `stop` was called, and before `cancel`.
    package var isStopped: Bool { end.load(ordering: .relaxed) == End.stopped.rawValue }

    private func set(_ reason: End) {
        _ = end.compareExchange(
            expected: End.none.rawValue, desired: reason.rawValue, ordering: .relaxed)
    }

    package var progress: Progress {
        let stage = stage.withLock { $0 }
        return Progress(
            phase: stage.phase, done: done.load(ordering: .relaxed), total: stage.total,
            different: different.load(ordering: .relaxed),
            seconds: (ContinuousClock().now - stage.start) / .seconds(1))
    }

    package func begin(_ phase: Phase, total: Int) {
        stage.withLock { $0 = Stage(phase: phase, total: total) }
        done.store(0, ordering: .relaxed)
        different.store(0, ordering: .relaxed)
    }

    /// Starts the flush, which keeps the figures of the phase before.
    func beginFlush() {
        stage.withLock { $0 = Stage(phase: .flush, total: $0.total) }
    }

    package func advance(done bytes: Int, different differing: Int) {
        let now = done.wrappingAdd(bytes, ordering: .relaxed).newValue
        if let limit, now >= limit { stop() }
        if differing > 0 { different.wrappingAdd(differing, ordering: .relaxed) }
    }
}
