// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import LinuxIO

/// Splits XML into tags, as far as the thin-provisioning tools write it.
///
/// Source: Extensible Markup Language (XML) 1.0, sections 2 and 3. Document type declarations and
/// text between tags are refused, because the tools never write them.
struct ThinDeltaXML {
    struct Element {
        var name: String
        var attributes: [(name: String, value: String)] = []
        /// Whether the tag is an empty-element tag.
        var isClosed = false

        subscript(_ name: String) -> String? { attributes.first { $0.name == name }?.value }
    }

    enum Tag {
        case start(Element)
        case end(name: String)
    }

    private let bytes: [UInt8]
    /// The program that wrote the text, for errors.
    private let program: String
    private var position = 0

    init(_ bytes: [UInt8], of program: String) {
        self.bytes = bytes
        self.program = program
    }

    /// Takes the next tag; `nil` at the end of the text.
    mutating func next() throws(IOError) -> Tag? {
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

    private mutating func takeElement() throws(IOError) -> Element {
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

    private mutating func takeValue() throws(IOError) -> String {
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

    /// Replaces references such as `&amp;`, `&#38;` and `&#x26;` by characters.
    private func resolved(_ text: String) throws(IOError) -> String {
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

    private mutating func takeName() throws(IOError) -> String {
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

    private mutating func skip(past text: StaticString) throws(IOError) {
        while position < bytes.count {
            if take(text) { return }
            position += 1
        }
        throw fault("it is cut off")
    }

    /// Makes an error with the current line number.
    func fault(_ reason: String) -> IOError {
        let line = 1 + bytes[..<position].count { $0 == UInt8(ascii: "\n") }
        return .noChangeMap(program, "its output, line \(line): \(reason)")
    }
}
