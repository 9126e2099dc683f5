// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices

/// The meaning of a `Range` header (RFC 9110, section 14).
package enum RangeRequest: Hashable, Sendable {
    /// Also for another unit, several ranges and a malformed header, which a server may ignore.
    case all
    case part(ByteRange)
    /// The content has none of the requested bytes: 416.
    case unsatisfiable

    /// - Parameters:
    ///   - header: such as `bytes=0-499`, `bytes=500-` or `bytes=-500`; `nil` without a header.
    ///   - size: bytes of the content.
    package init(_ header: String?, size: Int) {
        self = .all
        guard let header else { return }
        let halves = header.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
        guard halves.count == 2, halves[0].lowercased() == "bytes" else { return }
        let ends = trimmed(halves[1])
            .split(separator: "-", maxSplits: 1, omittingEmptySubsequences: false)
        guard ends.count == 2 else { return }
        switch (number(ends[0]), number(ends[1])) {
        case (.some(let first), .some(let last)):
            guard last >= first else { return }
            self =
                first < size ? .part(ByteRange(first, to: min(last, size - 1) + 1)) : .unsatisfiable
        case (.some(let first), nil) where ends[1].isEmpty:
            self = first < size ? .part(ByteRange(first, to: size)) : .unsatisfiable
        case (nil, .some(let suffix)) where ends[0].isEmpty:
            guard suffix > 0, size > 0 else {
                self = .unsatisfiable
                return
            }
            self = .part(ByteRange(size - min(suffix, size), to: size))
        default: return
        }
    }
}

/// A number that exceeds `Int` becomes its maximum.
private func number(_ text: Substring) -> Int? {
    guard !text.isEmpty, text.utf8.allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "9")) ~= $0 })
    else { return nil }
    return Int(text) ?? Int.max
}
