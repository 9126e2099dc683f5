// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import SyncEngine

extension Replication {
    /// The progress of a run; its figures may be of slightly different moments.
    public struct Progress: Hashable, Sendable {
        public enum Phase: String, Hashable, Sendable {
            case sync
            case compare
            case flush
            case verify
        }

        public var phase: Phase
        /// Bytes of this phase that need no more work.
        public var done: Int
        /// All bytes of this phase.
        public var total: Int
        /// Bytes found to differ so far.
        public var different: Int
        /// Since the start of the phase.
        public var seconds: Double

        init(_ progress: RunControl.Progress) {
            phase =
                switch progress.phase {
                case .sync: .sync
                case .compare: .compare
                case .flush: .flush
                case .verify: .verify
                }
            done = progress.done
            total = progress.total
            different = progress.different
            seconds = progress.seconds
        }
    }
}
