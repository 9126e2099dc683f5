// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

/// Takes XML apart into tags, as far as the tools of thin provisioning write it.
///
/// Source: Extensible Markup Language (XML) 1.0, section 2 and 3. Declarations of a document's type
/// and text between tags are refused: nobody writes them, so that something is wrong there.
struct MarkupScanner {
    /// A start tag.
    struct Element {
        var name: String
        var attributes: [(name: String, value: String)] = []
        /// Whether it is its own end.
        var isClosed = false

        /// The value of the attribute of that name.
        subscript(_ name: String) -> String? { attributes.first { $0.name == name }?.value }
    }

    enum Tag {
        case start(Element)
        case end(name: String)
    }

    private let bytes: [UInt8]
    private var position = 0

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    /// Takes the next tag.
    ///
    /// - Returns: the tag; `nil` at the end of the text.
    /// - Throws: where it is no such XML.
    mutating func next() throws(ChangeMapError) -> Tag? {
        while true {
            skipSpace()
            guard position < bytes.count else { return nil }
            guard take("<") else { throw fault("text between tags") }
            if take("?") {
                try skip(past: "?>")
            } else if take("!--") {
                try skip(past: "-->")
            } else if take("/") {
                let name = try takeName()
                skipSpace()
                guard take(">") else { throw fault("an end tag that does not end") }
                return .end(name: name)
            } else {
                return .start(try takeElement())
            }
        }
    }

    private mutating func takeElement() throws(ChangeMapError) -> Element {
        var element = Element(name: try takeName())
        while true {
            let hasSpace = skipSpace()
            if take("/>") {
                element.isClosed = true
                return element
            }
            if take(">") { return element }
            guard hasSpace else { throw fault("no blank before an attribute") }
            let name = try takeName()
            guard element[name] == nil else { throw fault("attribute \(name) twice in a tag") }
            skipSpace()
            guard take("=") else { throw fault("attribute \(name) without a value") }
            skipSpace()
            element.attributes.append((name, try takeValue()))
        }
    }

    private mutating func takeValue() throws(ChangeMapError) -> String {
        let quote: UInt8 = take("'") ? UInt8(ascii: "'") : UInt8(ascii: "\"")
        guard quote == UInt8(ascii: "'") || take("\"") else {
            throw fault("a value without quotes")
        }
        let start = position
        var hasReference = false
        while position < bytes.count, bytes[position] != quote {
            guard bytes[position] != UInt8(ascii: "<") else { throw fault("a tag within a tag") }
            hasReference = hasReference || bytes[position] == UInt8(ascii: "&")
            position += 1
        }
        guard position < bytes.count else { throw fault("a value that does not end") }
        let text = String(decoding: bytes[start..<position], as: UTF8.self)
        position += 1
        return hasReference ? try resolved(text) : text
    }

    /// Puts characters in the place of references: `&amp;`, `&#38;`, `&#x26;`.
    private func resolved(_ text: String) throws(ChangeMapError) -> String {
        var parts = text.split(separator: "&", omittingEmptySubsequences: false)[...]
        var result = parts.popFirst().map(String.init) ?? ""
        for part in parts {
            guard let end = part.firstIndex(of: ";"),
                let character = Self.character(part[..<end])
            else { throw fault("a reference that is not known: &\(part.prefix(16))") }
            result.append(character)
            result += part[part.index(after: end)...]
        }
        return result
    }

    private static func character(_ reference: Substring) -> Character? {
        switch reference {
        case "lt": return "<"
        case "gt": return ">"
        case "amp": return "&"
        case "quot": return "\""
        case "apos": return "'"
        default:
            let isHexadecimal = reference.hasPrefix("#x")
            guard reference.hasPrefix("#"),
                let code = UInt32(
                    reference.dropFirst(isHexadecimal ? 2 : 1), radix: isHexadecimal ? 16 : 10)
            else { return nil }
            return Unicode.Scalar(code).map(Character.init)
        }
    }

    private mutating func takeName() throws(ChangeMapError) -> String {
        let start = position
        while position < bytes.count, Self.isNameByte(bytes[position]) { position += 1 }
        guard position > start else {
            throw fault(start < bytes.count ? "no name where one should be" : "it is cut off")
        }
        return String(decoding: bytes[start..<position], as: UTF8.self)
    }

    private static func isNameByte(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"), UInt8(ascii: "-"),
            UInt8(ascii: "."), UInt8(ascii: ":"), 0x80...0xFF:
            true
        default: false
        }
    }

    @discardableResult
    private mutating func skipSpace() -> Bool {
        let start = position
        while position < bytes.count, Self.isSpace(bytes[position]) { position += 1 }
        return position > start
    }

    private static func isSpace(_ byte: UInt8) -> Bool {
        byte == 0x20 || byte == 0x09 || byte == 0x0A || byte == 0x0D
    }

    private mutating func take(_ text: StaticString) -> Bool {
        let isHere = text.withUTF8Buffer { bytes[position...].starts(with: $0) }
        if isHere { position += text.utf8CodeUnitCount }
        return isHere
    }

    private mutating func skip(past text: StaticString) throws(ChangeMapError) {
        while position < bytes.count {
            if take(text) { return }
            position += 1
        }
        throw fault("it is cut off")
    }

    /// What is wrong, and where.
    func fault(_ reason: String) -> ChangeMapError {
        let line = 1 + bytes[..<position].count { $0 == UInt8(ascii: "\n") }
        return ChangeMapError("thin_delta", "its output, line \(line): \(reason)")
    }
}
