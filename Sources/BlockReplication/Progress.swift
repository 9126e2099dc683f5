// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import SyncEngine

extension Replication {
    /// How far a run is; each figure is right by itself, they need not belong to one instant.
    public struct Progress: Hashable, Sendable {
        /// What a run is doing.
        public enum Phase: String, Hashable, Sendable {
            case sync
            case compare
            case flush
            case verify
        }

        public var phase: Phase
        /// Bytes of this phase that need no more work.
        public var done: Int
        /// Bytes of this phase in all.
        public var total: Int
        /// Bytes found to differ so far.
        public var different: Int
        /// Since the phase began.
        public var seconds: Double

        package init(_ progress: RunControl.Progress) {
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
