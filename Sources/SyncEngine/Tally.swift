// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
package import LinuxIO

/// What was found and done in a pass over two devices, sizes in bytes.
package struct Tally: Sendable {
    /// Bytes that were compared, holes that both sides have included.
    package var compared = 0
    /// Bytes that were not read, since a change map tells that they are equal.
    package var unchanged = 0
    package var different = 0
    package var differentBlocks = 0
    /// Data written to the target.
    package var written = 0
    /// Bytes of the target that were made zeros.
    package var zeroed = 0
    /// Operations on the target that this took.
    package var extents = 0
    /// Bytes of the source that could not be read and were left out.
    package var unreadable = 0
    /// Bytes of the target that could not be read and were written because of that.
    package var rewritten = 0
    /// How many extents could not be written.
    package var writeErrorCount = 0
    /// The first of the errors in writing.
    package var writeErrors: [IOError] = []

    /// As many errors are kept as a person reads.
    static let errorLimit = 16

    package init() {}

    mutating func addWriteError(_ error: IOError) {
        writeErrorCount += 1
        if writeErrors.count < Self.errorLimit { writeErrors.append(error) }
    }

    /// Adds what another worker of the same pass found.
    mutating func merge(_ other: Tally) {
        compared += other.compared
        unchanged += other.unchanged
        different += other.different
        differentBlocks += other.differentBlocks
        written += other.written
        zeroed += other.zeroed
        extents += other.extents
        unreadable += other.unreadable
        rewritten += other.rewritten
        writeErrorCount += other.writeErrorCount
        writeErrors = Array((writeErrors + other.writeErrors).prefix(Self.errorLimit))
    }
}
