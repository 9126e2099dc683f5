// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

extension Replication {
    /// A mapfile of GNU ddrescue; a run tries only what it says is missing, and updates it.
    public struct Mapfile: Hashable, Sendable {
        /// A file, which need not exist.
        public var path: String
        /// The time that a read of the source may take, more than zero; `nil` for any.
        public var readTimeout: Duration?

        public init(path: String) { self.path = path }
    }
}
