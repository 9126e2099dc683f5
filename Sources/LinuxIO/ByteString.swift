// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

extension StringProtocol {
    /// Whether both texts have the same bytes in UTF-8, as the kernel compares names.
    ///
    /// `==` also equates different bytes: "é" is one scalar or two (Unicode canonical equivalence).
    package func isSame(as other: some StringProtocol) -> Bool {
        utf8.elementsEqual(other.utf8)
    }

    /// Whether the text starts with the bytes of another one, as the kernel compares names.
    ///
    /// `hasPrefix` compares characters, so a combining mark behind a slash hides the slash from it.
    package func begins(with start: some StringProtocol) -> Bool {
        utf8.starts(with: start.utf8)
    }
}

/// A name as a key, equal to another one only if both have the same bytes in UTF-8.
package struct ByteString: Hashable, Sendable {
    package let text: String

    package init(_ text: String) { self.text = text }

    package static func == (one: ByteString, other: ByteString) -> Bool {
        one.text.isSame(as: other.text)
    }

    package func hash(into hasher: inout Hasher) {
        var text = text
        text.withUTF8 { hasher.combine(bytes: UnsafeRawBufferPointer($0)) }
        // No UTF-8 has this byte: it separates the name from whatever is hashed next.
        hasher.combine(0xFF as UInt8)
    }
}
