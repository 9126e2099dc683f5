// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import DeviceProbe
internal import Digests
package import LinuxIO
internal import LogicalVolumes

/// One line of a server's token file.
package struct TokenEntry: Hashable, Sendable {
    /// For the log.
    package var name: String
    /// The secret; `nil` if the line has only its digest, or if only a certificate with `name`
    /// counts.
    package var token: String?
    /// SHA-256 of the token, if the line has it instead.
    package var digest: [UInt8]?
    /// The user whose processes need no token on a unix socket.
    package var user: UInt32?
    /// Whether the holder may write; the export may allow less.
    package var access: ExportAccess
    /// The exports that the holder sees; `nil` for all.
    package var selectors: [ExportSelector]?
    /// The time of expiry in seconds since 1970; `nil` for never.
    package var expires: Int?
    /// The client addresses for which the line counts; `nil` for all.
    package var origins: [AddressBlock]?
    /// Bytes of all files in an exported directory, if the holder creates or extends one; `nil` for
    /// no limit.
    package var maximumSize: Int?
    /// Whether the holder may write and take snapshots, but neither remove nor shrink.
    package var isAppendOnly = false

    package init(
        name: String, token: String?, access: ExportAccess = .readWrite,
        selectors: [ExportSelector]? = nil
    ) {
        self.name = name
        self.token = token
        self.access = access
        self.selectors = selectors
    }

    /// Parses a line without its comment, `NAME TOKEN [ro] [OPTION…] [SELECTOR…]`.
    ///
    /// `TOKEN` can be `-` for none, `sha256:` and the 64 hexadecimal digits of its digest, or
    /// `user:` and the name or number of a user of this machine. Errors never contain the token.
    ///
    /// - Parameter users: a user's number; `nil` for an unknown name.
    package init(
        line: Substring, users: (String) -> UInt32? = { _ in nil }
    ) throws(WireError) {
        var words = line.split { $0 == " " || $0 == "\t" }.map(String.init)[...]
        guard let name = words.popFirst(), let token = words.popFirst() else {
            throw WireError("a line has a name and a token")
        }
        guard Self.isName(name) else {
            throw WireError("the name is not of 1 to 64 letters, digits and ._@-")
        }
        self.init(name: name, token: nil)
        if token.hasPrefix(Self.digestPrefix) {
            digest = try Self.digest(token.dropFirst(Self.digestPrefix.count))
        } else if token.hasPrefix(Self.userPrefix) {
            let name = String(token.dropFirst(Self.userPrefix.count))
            guard let number = UInt32(name) ?? users(name) else {
                throw WireError("\(token): this machine has no such user")
            }
            user = number
        } else if token != "-" {
            try Self.check(token)
            self.token = token
        }
        var rest: [String] = []
        var accesses: [ExportAccess] = []
        for word in words {
            if word == "ro" || word == "rw" {
                accesses.append(word == "ro" ? .readOnly : .readWrite)
            } else if try !read(option: word) {
                rest.append(word)
            }
        }
        guard accesses.count <= 1 else { throw WireError("ro or rw occurs more than once") }
        access = accesses.first ?? .readWrite
        guard user == nil || origins == nil else {
            throw WireError("from= is for addresses, and a user's process has none")
        }
        if access == .readOnly,
            let word = isAppendOnly ? "append-only" : maximumSize.map({ _ in "max-size=" })
        {
            throw WireError("\(word) needs write access, and the line has ro")
        }
        guard !rest.isEmpty else { return }
        var selectors: [ExportSelector] = []
        for word in rest {
            guard !Self.isMisspelled(word) else {
                throw WireError("\(word): not a word of a token line; a volume group is \(word)/*")
            }
            let selector = try ExportSelector(word)
            // One word applies to the whole token.
            guard !selector.hasAccess else {
                throw WireError("\(word): a selector is without :ro and :rw here")
            }
            selectors.append(selector)
        }
        self.selectors = selectors
    }

    /// Parses an option that restricts the line; `false` for another word.
    private mutating func read(option word: String) throws(WireError) -> Bool {
        func value(_ name: String) -> String? {
            word.hasPrefix(name) ? String(word.dropFirst(name.count)) : nil
        }
        let isGiven: Bool
        if word == "append-only" {
            isGiven = isAppendOnly
            isAppendOnly = true
        } else if let text = value("expires=") {
            isGiven = expires != nil
            expires = try seconds(ofDate: text)
        } else if let text = value("from=") {
            isGiven = origins != nil
            origins = []
            for part in text.split(separator: ",", omittingEmptySubsequences: false) {
                origins?.append(try AddressBlock(String(part)))
            }
        } else if let text = value("max-size=") {
            isGiven = maximumSize != nil
            guard let size = ByteSize(text) else {
                throw WireError("\(word): not a size such as 500G")
            }
            maximumSize = size.bytes
        } else {
            return false
        }
        guard !isGiven else { throw WireError("\(word): it occurs twice") }
        return true
    }

    /// Whether a word looks like a misspelled restriction.
    ///
    /// As the name of a volume group it would restrict nothing.
    private static func isMisspelled(_ word: String) -> Bool {
        var letters = ""
        for scalar in word.lowercased().unicodeScalars where ("a"..."z").contains(scalar) {
            letters.unicodeScalars.append(scalar)
        }
        return VolumePlace.isName(word)
            && ["ro", "rw", "read", "readonly", "readwrite", "write", "append", "appendonly"]
                .contains(letters)
    }

    private static let digestPrefix = "sha256:"
    private static let userPrefix = "user:"

    private static func digest(_ text: Substring) throws(WireError) -> [UInt8] {
        guard let digest = bytes(fromHexadecimal: String(text)), digest.count == 32 else {
            throw WireError("sha256: is followed by 64 hexadecimal digits")
        }
        return digest
    }

    /// The form in a token file, which its readers cannot use as a token.
    package static func atRest(_ token: String) throws(IOError) -> String {
        digestPrefix + hexadecimal(try sha256(of: Array(token.utf8)))
    }

    /// SHA-256 of the token; `nil` if the line has none.
    package func tokenDigest() throws(IOError) -> [UInt8]? {
        guard let token else { return digest }
        return try sha256(of: Array(token.utf8))
    }

    /// Minimum characters of a token; 20 of base64 have 120 bits.
    package static let shortest = 20
    private static let longest = 512

    /// Checks that a token can be sent and is not easily guessed; errors do not contain it.
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

    /// Whether a holder can have this name: 1 to 64 letters, digits and `._@-`.
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

/// Parses a server's token file, in which no name, token or user may appear twice.
///
/// A `#` starts a comment at the start of a line or after white space. Errors have the file and
/// line, but never a token.
///
/// - Parameters:
///   - name: the file's path, for errors.
///   - users: a user's number; `nil` for an unknown name.
package func tokens(
    inFile text: String, named name: String, users: (String) -> UInt32? = { _ in nil }
) throws(WireError) -> [TokenEntry] {
    var entries: [TokenEntry] = []
    var digests: [(name: String, digest: [UInt8])] = []
    for (number, line) in contentLines(of: text) {
        do throws(WireError) {
            let entry = try TokenEntry(line: line, users: users)
            if entries.contains(where: { $0.name == entry.name }) {
                throw WireError("\(entry.name) has a line already")
            }
            if let user = entry.user, let other = entries.first(where: { $0.user == user }) {
                throw WireError("\(entry.name) has the same user as \(other.name)")
            }
            let digest = try digest(of: entry)
            if let digest, let other = digests.first(where: { $0.digest == digest }) {
                throw WireError("\(entry.name) has the same token as \(other.name)")
            }
            entries.append(entry)
            if let digest { digests.append((entry.name, digest)) }
        } catch {
            throw WireError("\(name):\(number): \(error.reason)")
        }
    }
    guard !entries.isEmpty else { throw WireError("\(name): there is no token in it") }
    return entries
}

private func digest(of entry: TokenEntry) throws(WireError) -> [UInt8]? {
    do throws(IOError) { return try entry.tokenDigest() } catch {
        throw WireError("libcrypto: \(error.reason)")
    }
}

/// Parses a client's token file, whose only line is the token; errors never contain it.
///
/// - Parameter name: the file's path, for errors.
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
