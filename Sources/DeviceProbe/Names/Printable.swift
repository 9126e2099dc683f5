// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

/// Whether a scalar can make a line of a terminal or a log show something other than its text.
///
/// These are the control characters (C0, DEL, C1), the separators of lines and paragraphs, and the
/// controls of the bidirectional algorithm (Unicode Standard Annex 9, section 2).
package func isControl(_ scalar: Unicode.Scalar) -> Bool {
    switch scalar.value {
    case 0..<0x20, 0x7F..<0xA0, 0x61C, 0x200E...0x200F, 0x2028...0x202E, 0x2066...0x2069: true
    default: false
    }
}

/// Makes untrusted text safe for one line of a terminal: each control character becomes `?`.
package func printable(_ text: String) -> String {
    guard text.unicodeScalars.contains(where: isControl) else { return text }
    return text.unicodeScalars.map { isControl($0) ? "?" : String($0) }.joined()
}

func quoted(_ text: String) -> String { "\"\(printable(text))\"" }

/// Makes untrusted text safe for one line without ambiguity.
///
/// Control characters become `\u{1b}` or `\n`, and a backslash is doubled, so different texts stay
/// different.
package func escaped(_ text: String) -> String {
    guard text.unicodeScalars.contains(where: { isControl($0) || $0 == "\\" }) else { return text }
    return text.unicodeScalars.map { scalar in
        switch scalar {
        case "\n": "\\n"
        case "\r": "\\r"
        case "\t": "\\t"
        case "\\": "\\\\"
        case _ where isControl(scalar): "\\u{\(String(scalar.value, radix: 16))}"
        default: String(scalar)
        }
    }.joined()
}
