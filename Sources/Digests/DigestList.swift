// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc

/// Digests of the consecutive regions of a window, or blocks of a region, lie one after the other
/// without gaps.
extension DigestMethod {
    /// Size in bytes of the digests of a buffer.
    ///
    /// - Parameters:
    ///   - length: of the buffer, in bytes.
    ///   - unit: of the region or block that each digest covers, in bytes; the last may be shorter.
    /// - Returns: bytes.
    package func byteCount(ofDigestsOver length: Int, every unit: Int) -> Int {
        unitCount(length, every: unit) * byteCount
    }

    /// Which of two lists' digests differ.
    ///
    /// - Parameters:
    ///   - ours: digests one after the other.
    ///   - theirs: digests of the same places on the other side.
    /// - Returns: the indices of those that differ, ascending.
    package func differences(
        between ours: UnsafeRawBufferPointer, and theirs: UnsafeRawBufferPointer
    ) -> [Int] {
        precondition(ours.count == theirs.count && ours.count % byteCount == 0)
        let count = ours.count / byteCount
        guard let ours = ours.baseAddress, let theirs = theirs.baseAddress else { return [] }
        // Most windows are alike: one look for all of them.
        if memcmp(ours, theirs, count * byteCount) == 0 { return [] }
        return (0..<count).filter { index in
            memcmp(ours + index * byteCount, theirs + index * byteCount, byteCount) != 0
        }
    }
}

/// How many regions or blocks a length in bytes has, the last one perhaps partial.
func unitCount(_ length: Int, every unit: Int) -> Int {
    precondition(length >= 0 && unit > 0)
    return (length + unit - 1) / unit
}
