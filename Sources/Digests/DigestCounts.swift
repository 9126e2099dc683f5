// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

extension DigestMethod {
    /// - Parameter unit: bytes that each digest covers; the last unit may be shorter.
    package func byteCount(ofDigestsOver length: Int, every unit: Int) -> Int {
        unitCount(length, every: unit) * byteCount
    }
}

/// Includes a partial last unit.
func unitCount(_ length: Int, every unit: Int) -> Int {
    precondition(length >= 0 && unit > 0)
    return (length + unit - 1) / unit
}
