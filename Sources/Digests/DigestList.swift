// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc

extension DigestMethod {
    /// - Parameter unit: bytes that each digest covers; the last unit may be shorter.
    package func byteCount(ofDigestsOver length: Int, every unit: Int) -> Int {
        unitCount(length, every: unit) * byteCount
    }

    /// The indices of the digests that differ, ascending.
    package func differences(
        between ours: UnsafeRawBufferPointer, and theirs: UnsafeRawBufferPointer
    ) -> [Int] {
        precondition(ours.count == theirs.count && ours.count % byteCount == 0)
        let count = ours.count / byteCount
        guard let ours = ours.baseAddress, let theirs = theirs.baseAddress else { return [] }
        // Most windows are equal, which one call shows.
        if memcmp(ours, theirs, count * byteCount) == 0 { return [] }
        return (0..<count).filter { index in
            memcmp(ours + index * byteCount, theirs + index * byteCount, byteCount) != 0
        }
    }
}

/// Includes a partial last unit.
func unitCount(_ length: Int, every unit: Int) -> Int {
    precondition(length >= 0 && unit > 0)
    return (length + unit - 1) / unit
}
