// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

/// Bytes of one text of a server in a message.
private let longestText = 1000

/// Number of texts in a list that a server sends.
private let mostTexts = 100

/// Texts of a server, which may be broken or malicious and send megabytes.
extension String {
    /// The text for a message: the first 1000 bytes, and "…" in place of the rest.
    package var shortened: String {
        guard utf8.count > longestText else { return self }
        var end = utf8.index(startIndex, offsetBy: longestText)
        // Back to the first byte of a scalar.
        while utf8[end] & 0xC0 == 0x80 { end = utf8.index(before: end) }
        return String(self[..<end]) + "…"
    }
}

extension [String] {
    /// The first 100 texts, shortened, and the number of the others.
    package var shortened: [String] {
        let rest = count - mostTexts
        return prefix(mostTexts).map(\.shortened) + (rest > 0 ? ["… and \(rest) more"] : [])
    }
}
