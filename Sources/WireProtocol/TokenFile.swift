// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

/// One line of a server's token file: who has the token, and what for.
package struct TokenEntry: Hashable, Sendable {
    /// For the log.
    package var name: String
    /// What the client shows: the secret; `nil` where only a certificate of that name will do.
    package var token: String?
    /// Whether its holder may write where the export allows it.
    package var access: ExportAccess
    /// The exports that there are for its holder; `nil` for all.
    package var selectors: [ExportSelector]?

    package init(
        name: String, token: String?, access: ExportAccess = .readWrite,
        selectors: [ExportSelector]? = nil
    ) {
        self.name = name
        self.token = token
        self.access = access
        self.selectors = selectors
    }

    /// Reads a line, `NAME TOKEN [ro] [SELECTOR…]`, without its comment; `-` stands for no token.
    ///
    /// - Throws: what is wrong with it, never with the token.
    package init(line: Substring) throws(WireError) {
        var words = line.split { $0 == " " || $0 == "\t" }.map(String.init)[...]
        guard let name = words.popFirst(), let token = words.popFirst() else {
            throw WireError("a line has a name and a token")
        }
        guard Self.isName(name) else {
            throw WireError("the name is not of 1 to 64 letters, digits and ._@-")
        }
        if token != "-" { try Self.check(token) }
        self.init(name: name, token: token == "-" ? nil : token)
        if let word = words.first, word == "ro" || word == "rw" {
            access = word == "ro" ? .readOnly : .readWrite
            words.removeFirst()
        }
        guard !words.isEmpty else { return }
        var selectors: [ExportSelector] = []
        for word in words {
            let selector = try ExportSelector(word)
            // The access is the token's, one word for all.
            guard !selector.hasAccess else {
                throw WireError("\(word): a selector is without :ro and :rw here")
            }
            selectors.append(selector)
        }
        self.selectors = selectors
    }

    /// The fewest characters of a token: 20 of base64 are 120 bits.
    package static let shortest = 20
    private static let longest = 512

    /// Makes sure that a token can be sent and is not easily guessed.
    ///
    /// - Throws: what is wrong with it, without the token.
    package static func check(_ token: String) throws(WireError) {
        guard (shortest...longest).contains(token.utf8.count) else {
            throw WireError(
                "the token has \(token.utf8.count) characters, not \(shortest) to \(longest); "
                    + "blkferry token makes a good one")
        }
        guard token.utf8.allSatisfy(isTokenByte) else {
            throw WireError("the token has characters besides letters, digits and -._~+/=")
        }
    }

    private static func isAlphanumeric(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"):
            true
        default: false
        }
    }

    /// Whether a text can name a holder: 1 to 64 letters, digits and `._@-`.
    package static func isName(_ text: String) -> Bool {
        (1...64).contains(text.utf8.count) && text.utf8.allSatisfy(isNameByte)
    }

    private static func isNameByte(_ byte: UInt8) -> Bool {
        isAlphanumeric(byte) || "._@-".utf8.contains(byte)
    }

    /// b64token of RFC 6750, section 2.1.
    private static func isTokenByte(_ byte: UInt8) -> Bool {
        isAlphanumeric(byte) || "-._~+/=".utf8.contains(byte)
    }
}

/// Reads a server's token file: one token a line; `#` begins a comment at the start of a line or
/// after white space.
///
/// - Parameters:
///   - text: the file.
///   - name: its path, for messages.
/// - Returns: the entries in the order of the file.
/// - Throws: for the first line that is none, and for a name or a token that stands there twice,
///   with file and line; never with a token.
package func tokens(inFile text: String, named name: String) throws(WireError) -> [TokenEntry] {
    var entries: [TokenEntry] = []
    for (number, line) in contentLines(of: text) {
        do throws(WireError) {
            let entry = try TokenEntry(line: line)
            if entries.contains(where: { $0.name == entry.name }) {
                throw WireError("\(entry.name) has a line already")
            }
            if let other = entries.first(where: { $0.token != nil && $0.token == entry.token }) {
                throw WireError("\(entry.name) has the same token as \(other.name)")
            }
            entries.append(entry)
        } catch {
            throw WireError("\(name):\(number): \(error.reason)")
        }
    }
    guard !entries.isEmpty else { throw WireError("\(name): there is no token in it") }
    return entries
}

/// Reads a client's token file: the one line that is no comment is the token.
///
/// - Parameters:
///   - text: the file.
///   - name: its path, for messages.
/// - Returns: the token.
/// - Throws: when that is not so; never with the token.
package func token(inFile text: String, named name: String) throws(WireError) -> String {
    let lines = contentLines(of: text)
    guard lines.count == 1, let (number, line) = lines.first else {
        throw WireError("\(name): it has \(lines.count) lines that could be a token, not one")
    }
    do throws(WireError) { try TokenEntry.check(String(line)) } catch {
        throw WireError("\(name):\(number): \(error.reason)")
    }
    return String(line)
}
