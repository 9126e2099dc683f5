// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices
package import LinuxIO

package struct SyncOptions: Hashable, Sendable {
    package var layout: BlockLayout
    /// Writes everything without comparing.
    package var wholeFile: Bool
    /// Only compares.
    package var isDryRun: Bool
    /// Skips unreadable blocks of the source instead of failing.
    package var skipsUnreadable: Bool
    /// Reads and compares both sides again after the flush.
    package var verifies: Bool
    /// Threads of a pass.
    package var concurrency: Int
    /// Threads of a pass at most while a server's round trip is long; `nil` for `concurrency`.
    package var mostConcurrency: Int?
    /// Ends the run, instead of comparing everything again, if the target's session was lost and
    /// another program may have written to it.
    package var endsWhenLost = false
    /// Bytes; `nil` to keep the target's size.
    package var resizeTo: Int?
    /// Whether the target gets the size of a source that is a stream.
    package var resizesToStream = false
    /// The only ranges that may differ and are read, ascending and disjoint; `nil` for all.
    package var changes: [ByteRange]?
    /// Records in the report what was processed completely.
    package var recordsDone = false
    /// The source's change counter from before its `changes` or holes were determined; `nil` to read
    /// it at the start.
    package var sourceChangeCounter: ChangeCounter?
    /// Bytes behind the replica on a larger target, which are written at the end.
    package var tail: [Patch] = []

    package init(
        layout: BlockLayout = BlockLayout(), wholeFile: Bool = false, isDryRun: Bool = false,
        skipsUnreadable: Bool = false, verifies: Bool = false, concurrency: Int = 8,
        resizeTo: Int? = nil, changes: [ByteRange]? = nil
    ) {
        self.layout = layout
        self.wholeFile = wholeFile
        self.isDryRun = isDryRun
        self.skipsUnreadable = skipsUnreadable
        self.verifies = verifies
        self.concurrency = concurrency
        self.resizeTo = resizeTo
        self.changes = changes
    }
}

package struct SyncReport: Sendable {
    /// Bytes of the source.
    package var size: Int
    package var blockSize: Int
    package var tally = Tally()
    package var firstDifferences: [ByteRange] = []
    /// Skipped ranges of the source, ascending.
    package var unreadableRanges: [ByteRange] = []
    /// `nil` if nothing was read back.
    package var verification: Verification?
    /// What was compared, and written without an error, by the last pass that wrote; ascending, and
    /// empty unless it is recorded.
    ///
    /// It counts only if the flush succeeded and no other program wrote meanwhile.
    package var done: [ByteRange] = []
    /// Whether the last pass was restricted to `SyncOptions.changes`.
    package var wasRestricted = false
    package var failure: IOError?
    /// After a failed flush, written data may not be on the medium.
    package var flushError: IOError?
    package var isFlushed = false
    /// Whether the run was cancelled before its end.
    package var wasInterrupted = false
    /// Whether another program wrote to the source during the run.
    package var sourceChanged = false
    /// Whether another process wrote to the target during the run, or may have written.
    package var targetChanged = false
    /// Whether another program had the target open for writing during the run.
    package var targetWasOpened = false
    /// Whether that was so during the last comparison, so that nothing shows whether it wrote.
    package var targetIsUnproven = false
    /// Number of repeated comparisons, because other programs may have written.
    package var restarts = 0
    /// `nil` unless the run had a map.
    package var rescue: RescueResult?
    package var seconds = Seconds()

    package struct Verification: Sendable {
        /// Bytes compared again, including holes on both sides.
        package var compared: Int
        /// Bytes of the target that were read again.
        package var read: Int
        package var different: Int
        package var firstDifferences: [ByteRange]
    }

    package struct Seconds: Hashable, Sendable {
        package var sync = 0.0
        package var flush = 0.0
        package var verify = 0.0
        package var total: Double { sync + flush + verify }
    }

    package init(size: Int, blockSize: Int) {
        self.size = size
        self.blockSize = blockSize
    }

    /// The share of compared bytes that are equal, 0 to 1; `nil` if none were.
    package var similarity: Double? {
        let known = tally.compared + tally.unchanged
        return known == 0 ? nil : 1 - Double(tally.different) / Double(known)
    }
}
