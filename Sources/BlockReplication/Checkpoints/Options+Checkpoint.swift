// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

extension Replication {
    /// A file in which a run that ends early leaves what it has done, so that the next run need not
    /// compare it again.
    ///
    /// The next run uses it only if the persistent change counters of both sides prove that no
    /// program has written since. A run that ends with a complete target removes the file.
    public struct Checkpoint: Hashable, Sendable {
        /// A checkpoint, or a file that does not exist.
        public var file: String
        /// Whether the user did not ask for it; the lack of a change counter is then no warning.
        public var isAutomatic = false

        public init(file: String) { self.file = file }
    }
}

extension Replication.Report {
    /// What a run took from a checkpoint, and left in it; sizes in bytes.
    public struct CheckpointUse: Hashable, Sendable {
        public var file: String
        /// What was not compared again, because an earlier run had done it.
        public var resumed = 0
        /// What was read of the target, from what that run had done, as a sample.
        public var sampled = 0
        /// What is done according to the checkpoint that this run has left; `nil` if it left none.
        public var done: Int?
        /// Why everything was compared, although there was a checkpoint: one word of a fixed list.
        public var fallback: String?
    }
}
