// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

/// A size such as `4096`, `64K`, `1MiB` or `1.5 GB`, in binary units.
package struct ByteSize: Hashable, Sendable {
    package var bytes: Int

    /// `nil` for other text, a fraction without a unit, and 2^63 bytes or more.
    ///
    /// - Parameter text: a number and perhaps a space and a unit: `B`, or one of `KMGTP` alone or
    ///   followed by `B` or `iB`, in upper or lower case.
    package init?(_ text: String) {
        let number = text.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
        let unit = text.dropFirst(number.count).drop { $0 == " " }.lowercased()
        guard let factor = Self.factor(of: unit) else { return nil }
        let parts = number.split(separator: ".", omittingEmptySubsequences: false)
        guard let first = parts.first, let whole = Int(first), parts.count <= 2 else { return nil }
        var (bytes, isTooLarge) = whole.multipliedReportingOverflow(by: factor)
        if isTooLarge { return nil }
        if parts.count == 2 {
            guard let fraction = Double("0." + parts[1]) else { return nil }
            (bytes, isTooLarge) = bytes.addingReportingOverflow(Int(fraction * Double(factor)))
            if isTooLarge || (factor == 1 && fraction != 0) { return nil }
        }
        self.bytes = bytes
    }

    private static func factor(of unit: String) -> Int? {
        if unit.isEmpty || unit == "b" { return 1 }
        guard let first = unit.first, let power = Array("kmgtp").firstIndex(of: first) else {
            return nil
        }
        guard ["", "b", "ib"].contains(unit.dropFirst()) else { return nil }
        return 1 << (10 * (power + 1))
    }
}
