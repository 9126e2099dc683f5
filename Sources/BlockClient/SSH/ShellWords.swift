// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import WireProtocol

/// Splits a command such as `ssh -i "my key"` into words, as a shell does with plain words, quotes
/// and backslashes.
///
/// - Returns: at least one word.
/// - Throws: for an open quote, for a command without words, and for syntax that only a shell could
///   interpret.
package func shellWords(_ text: String) throws(WireError) -> [String] {
    var words: [String] = []
    var word: String?
    // Scalars, because a combining mark would form one character with the quote before it.
    var quote: Unicode.Scalar?
    var characters = text.unicodeScalars[...]
    while let character = characters.popFirst() {
        switch (quote, character) {
        case (nil, " "), (nil, "\t"), (nil, "\n"):
            if let word { words.append(word) }
            word = nil
        case (nil, "'"), (nil, "\""):
            quote = character
            word = word ?? ""
        case ("'", "'"), ("\"", "\""):
            quote = nil
        case (nil, "\\"):
            guard let next = characters.popFirst() else {
                throw WireError("\(text): a backslash at its end")
            }
            word = (word ?? "") + String(next)
        case ("\"", "\\"):
            // Other characters keep their backslash (POSIX, Shell Command Language, 2.2.3).
            if let next = characters.first, "$`\"\\".unicodeScalars.contains(next) {
                word = (word ?? "") + String(characters.removeFirst())
            } else {
                word = (word ?? "") + "\\"
            }
        case (nil, _) where "$`|&;<>()*?[".unicodeScalars.contains(character), ("\"", "$"),
            ("\"", "`"):
            throw WireError(
                "\(text): no shell reads it, and \(character) needs one; "
                    + "quote \(character) to use it literally")
        default:
            word = (word ?? "") + String(character)
        }
    }
    guard quote == nil else { throw WireError("\(text): a quote is not closed") }
    if let word { words.append(word) }
    guard words.first?.isEmpty == false else { throw WireError("\(text): it names no command") }
    return words
}

/// Quotes a word so that every shell takes it literally.
package func shellQuoted(_ word: String) -> String {
    // Scalars, because a combining mark would form one character with the quote before it.
    var quoted = "'"
    for scalar in word.unicodeScalars {
        if scalar == "'" { quoted += "'\\''" } else { quoted.unicodeScalars.append(scalar) }
    }
    return quoted + "'"
}
