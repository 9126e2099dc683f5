// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices
package import LinuxIO

/// How two devices are compared and made equal.
package struct SyncOptions: Hashable, Sendable {
    package var layout: BlockLayout
    /// Write everything without comparing.
    package var wholeFile: Bool
    /// Compare only.
    package var isDryRun: Bool
    /// Leave unreadable blocks of the source out instead of failing.
    package var skipsUnreadable: Bool
    /// Read both sides again after the flush and compare.
    package var verifies: Bool
    /// Worker threads.
    package var concurrency: Int
    /// The size that the target is to have, in bytes; `nil` leaves it as it is.
    package var resizeTo: Int?
    /// Where the two may differ, ascending and apart from each other; `nil` for everywhere.
    ///
    /// The rest is not read, and taken for equal.
    package var changes: [ByteRange]?
    /// The source's stamp of before it was asked what has changed; `nil` for that of the start.
    package var sourceStamp: ContentStamp?

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

/// What a run found and did, and how it ended.
package struct SyncReport: Sendable {
    /// Bytes of the source, all of which a complete run compares.
    package var size: Int
    package var blockSize: Int
    package var tally = Tally()
    /// The first extents that differed, ascending.
    package var firstDifferences: [ByteRange] = []
    /// What of the source could not be read and was left out, ascending.
    package var unreadableRanges: [ByteRange] = []
    /// What the read-back found; `nil` when there was none.
    package var verification: Verification?
    /// The error that ended the run early.
    package var failure: IOError?
    /// The flush failed: what was written may not be on the medium.
    package var flushError: IOError?
    package var isFlushed = false
    /// The run was cancelled before all was done.
    package var wasInterrupted = false
    /// Somebody wrote to the source while it was read.
    package var sourceChanged = false
    /// Somebody wrote to the target while it was only compared.
    package var targetChanged = false
    package var seconds = Seconds()

    /// What reading both sides again after the flush found.
    package struct Verification: Sendable {
        /// Bytes that were compared again.
        package var compared: Int
        package var different: Int
        package var firstDifferences: [ByteRange]
    }

    /// How long the parts of a run took.
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

    /// How much of what was compared is the same on both sides, 0 to 1; `nil` when nothing was.
    package var similarity: Double? {
        let known = tally.compared + tally.unchanged
        return known == 0 ? nil : 1 - Double(tally.different) / Double(known)
    }
}
