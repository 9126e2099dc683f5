// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

/// The conditions of a request (RFC 9110, section 13) for a resource without a time of
/// modification.
package struct Preconditions: Hashable, Sendable {
    package enum Verdict: Hashable, Sendable {
        case proceed
        /// 304: the client's copy is current.
        case notModified
        /// 412: the resource is not the one that the client expects.
        case failed
    }

    /// The values of the fields, with several lines of one joined by commas; `nil` for a missing
    /// field.
    package var ifMatch: String?
    package var ifNoneMatch: String?
    package var ifRange: String?

    package init(ifMatch: String?, ifNoneMatch: String?, ifRange: String?) {
        self.ifMatch = ifMatch
        self.ifNoneMatch = ifNoneMatch
        self.ifRange = ifRange
    }

    /// Evaluates a GET or HEAD in the order of section 13.2.2.
    ///
    /// - Parameter tag: the strong entity tag in quotes; `nil` for none.
    package func verdict(tag: String?) -> Verdict {
        if let ifMatch, !Self.matches(ifMatch, tag, weakly: false) { return .failed }
        if let ifNoneMatch, Self.matches(ifNoneMatch, tag, weakly: true) { return .notModified }
        return .proceed
    }

    /// Whether a Range field applies (section 13.1.5); if not, the client gets everything.
    package func allowsRange(tag: String?) -> Bool {
        // A date never matches, because the resource has none.
        ifRange.map { Self.tags(in: $0) == [Tag(isWeak: false, text: tag ?? "")] } ?? true
    }

    private struct Tag: Hashable {
        var isWeak: Bool
        /// In quotes.
        var text: String
    }

    private static func matches(_ field: String, _ tag: String?, weakly: Bool) -> Bool {
        if field.utf8.filter({ !isSpace($0) }).elementsEqual("*".utf8) { return true }
        guard let tag, let tags = tags(in: field) else { return false }
        return tags.contains { $0.text == tag && (weakly || !$0.isWeak) }
    }

    /// Parses a list of entity tags (section 8.8.3); `nil` if it is malformed.
    private static func tags(in field: String) -> [Tag]? {
        var tags: [Tag] = []
        var rest = field.utf8[...]
        func skip(_ isSkipped: (UInt8) -> Bool) {
            while let first = rest.first, isSkipped(first) { rest.removeFirst() }
        }
        while true {
            // Empty elements are ignored (section 5.6.1.2).
            skip { isSpace($0) || $0 == UInt8(ascii: ",") }
            guard !rest.isEmpty else { return tags }
            let isWeak = rest.starts(with: "W/".utf8)
            if isWeak { rest.removeFirst(2) }
            guard rest.first == UInt8(ascii: "\"") else { return nil }
            let content = rest.dropFirst().prefix { $0 == 0x21 || $0 >= 0x23 && $0 != 0x7F }
            rest = rest.dropFirst(1 + content.count)
            guard rest.first == UInt8(ascii: "\"") else { return nil }
            rest.removeFirst()
            tags.append(Tag(isWeak: isWeak, text: "\"\(Substring(content))\""))
            skip(isSpace)
            guard rest.isEmpty || rest.first == UInt8(ascii: ",") else { return nil }
        }
    }

    private static func isSpace(_ byte: UInt8) -> Bool { byte == 0x20 || byte == 0x09 }
}
