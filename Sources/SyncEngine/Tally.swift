// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
package import LinuxIO

/// The results of a pass, in bytes.
package struct Tally: Sendable {
    /// Compared bytes, including holes on both sides.
    package var compared = 0
    /// Bytes of the target, without holes and without those beside unreadable bytes of the source.
    package var targetRead = 0
    /// Bytes that were not read, because the change map excludes them.
    package var unchanged = 0
    package var different = 0
    package var differentBlocks = 0
    /// Bytes that differed in all passes together; more than `different` if the last of several
    /// passes ended early.
    package var differentInAllPasses = 0
    package var written = 0
    package var zeroed = 0
    /// Number of writing and zeroing operations.
    package var extents = 0
    /// Skipped bytes of the source.
    package var unreadable = 0
    /// Bytes of the target that could not be read and were therefore written.
    package var rewritten = 0
    package var writeErrorCount = 0
    package var writeErrors: [IOError] = []

    /// More than a person reads.
    static let errorLimit = 16

    package init() {}

    mutating func addWriteError(_ error: IOError) {
        writeErrorCount += 1
        if writeErrors.count < Self.errorLimit { writeErrors.append(error) }
    }

    /// Adds the writes and differences from before a repeated comparison.
    mutating func add(writtenBefore other: Tally) {
        differentInAllPasses = different + other.different
        different = min(differentInAllPasses, compared)
        addWrites(of: other)
    }

    mutating func merge(_ other: Tally) {
        compared += other.compared
        targetRead += other.targetRead
        unchanged += other.unchanged
        different += other.different
        unreadable += other.unreadable
        addWrites(of: other)
        writeErrorCount += other.writeErrorCount
        writeErrors = Array((writeErrors + other.writeErrors).prefix(Self.errorLimit))
    }

    private mutating func addWrites(of other: Tally) {
        differentBlocks += other.differentBlocks
        written += other.written
        zeroed += other.zeroed
        extents += other.extents
        rewritten += other.rewritten
    }
}
