// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Synchronization

/// What the one who started a run shares with it while it is under way: a way to end it, and how
/// far it is.
///
/// All of it is atomic; each figure is right by itself, they need not belong to one instant.
package final class RunControl: Sendable {
    /// What a run is doing.
    package enum Phase: Int, Sendable {
        case sync
        case flush
        case verify
    }

    /// How far a run is.
    package struct Progress: Hashable, Sendable {
        package var phase: Phase
        /// Bytes of this phase that need no more work.
        package var done: Int
        /// Bytes of this phase in all.
        package var total: Int
        /// Bytes found to differ so far.
        package var different: Int
    }

    private let cancelled = Atomic(false)
    private let phase = Atomic(Phase.sync.rawValue)
    private let done = Atomic(0)
    private let total = Atomic(0)
    private let different = Atomic(0)

    package init() {}

    /// Ends the run when the windows in work are finished.
    package func cancel() { cancelled.store(true, ordering: .relaxed) }

    package var isCancelled: Bool { cancelled.load(ordering: .relaxed) }

    package var progress: Progress {
        Progress(
            phase: Phase(rawValue: phase.load(ordering: .relaxed)) ?? .sync,
            done: done.load(ordering: .relaxed), total: total.load(ordering: .relaxed),
            different: different.load(ordering: .relaxed))
    }

    func begin(_ newPhase: Phase, total bytes: Int) {
        phase.store(newPhase.rawValue, ordering: .relaxed)
        done.store(0, ordering: .relaxed)
        total.store(bytes, ordering: .relaxed)
        different.store(0, ordering: .relaxed)
    }

    func advance(done bytes: Int, different differing: Int) {
        done.wrappingAdd(bytes, ordering: .relaxed)
        if differing > 0 { different.wrappingAdd(differing, ordering: .relaxed) }
    }
}
