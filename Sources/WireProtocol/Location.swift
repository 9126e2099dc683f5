// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

/// A place that a user names: a device here, or one that a server offers.
package enum Location: Hashable, Sendable {
    /// A selector.
    case local(String)
    case remote(RemoteLocation)

    /// Reads what the user wrote: everything without a scheme is local.
    ///
    /// - Throws: for a URL that cannot be used, with the reason.
    package init(_ text: String) throws(WireError) {
        guard let mark = text.range(ofScheme: "://") else {
            self = .local(text)
            return
        }
        self = .remote(
            try RemoteLocation(
                scheme: text[..<mark.lowerBound].lowercased(), rest: text[mark.upperBound...],
                text: text))
    }
}

/// A URL whose path is a selector: `http://host[:8080]/UUID=…`, `http://host/dev/vg0/root`.
package struct RemoteLocation: Hashable, Sendable {
    package enum Scheme: String, Hashable, Sendable {
        case http
        case https
    }

    package var scheme: Scheme
    /// Host and port, an IPv6 address in brackets.
    package var authority: String
    /// `nil` for the server as a whole.
    package var selector: String?
    /// As the user wrote it.
    package var text: String

    package static let defaultPort = 8080

    /// What a server's ids begin with that are no selectors here.
    private static let idPrefixes = ["NAME=", "WWN=", "SERIAL="]

    /// Scheme, host and port.
    package var server: String { "\(scheme.rawValue)://\(authority)" }

    fileprivate init(scheme name: String, rest: Substring, text: String) throws(WireError) {
        guard let scheme = Scheme(rawValue: name) else {
            throw WireError("\(text): scheme \(name) is unknown: http or https")
        }
        self.scheme = scheme
        self.text = text
        guard !rest.unicodeScalars.contains(where: { $0.value <= 0x20 || $0.value == 0x7F }) else {
            throw WireError("\(text): it has white space; write it as %20")
        }
        guard !rest.contains("?"), !rest.contains("#") else {
            throw WireError("\(text): it has a query or fragment; write ? as %3F and # as %23")
        }
        let host = rest.prefix { $0 != "/" }
        guard !host.contains("@") else {
            throw WireError("\(text): a user name or password does not belong into a URL")
        }
        authority = try Self.authority(host, text)
        let path = rest.dropFirst(host.count)
        guard path != "", path != "/" else {
            selector = nil
            return
        }
        guard let decoded = percentDecoded(path) else {
            throw WireError("\(text): its percent signs do not stand for UTF-8 text")
        }
        // A tag stands without the slash; what looks like one in a directory keeps it.
        // The slash alone: a combining mark after it would be one character with it.
        let bare = String(decoded.unicodeScalars.dropFirst())
        let isTag = ExportSelector.isTag(bare) || Self.idPrefixes.contains { bare.hasPrefix($0) }
        selector = isTag ? bare : decoded
    }

    private static func authority(_ host: Substring, _ text: String) throws(WireError) -> String {
        var name = host
        var port = "\(defaultPort)"
        let colon = host.lastIndex(of: ":")
        if let colon, !host.hasSuffix("]"), colon != host.startIndex {
            name = host[..<colon]
            port = String(host[host.index(after: colon)...])
        }
        guard !name.isEmpty else { throw WireError("\(text): it has no host") }
        if name.hasPrefix("[") {
            guard name.hasSuffix("]"), name.count > 2,
                name.dropFirst().dropLast().utf8.allSatisfy(
                    {
                        hexDigit($0) != nil || $0 == UInt8(ascii: ":") || $0 == UInt8(ascii: ".")
                            || $0 == UInt8(ascii: "%")
                    })
            else { throw WireError("\(text): \(name) is not an IPv6 address") }
        } else {
            guard !name.contains(":") else {
                throw WireError("\(text): an IPv6 address is written in brackets: [\(host)]")
            }
            guard name.utf8.allSatisfy(isHostByte) else {
                throw WireError("\(text): \(name) is not a host's name")
            }
        }
        guard let number = Int(port), (1...65535).contains(number),
            port.utf8.allSatisfy({ hexDigit($0).map { $0 < 10 } ?? false })
        else { throw WireError("\(text): port \(port): must be from 1 to 65535") }
        return "\(name):\(number)"
    }

    private static func isHostByte(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"),
            UInt8(ascii: "."):
            true
        default: byte >= 0x80
        }
    }
}

extension String {
    /// Where a scheme ends: letters, digits, `+`, `-` and `.` before the mark (RFC 3986, 3.1).
    fileprivate func range(ofScheme mark: String) -> Range<String.Index>? {
        guard let colon = firstIndex(of: ":"), self[colon...].hasPrefix(mark), colon > startIndex
        else { return nil }
        let isScheme = self[..<colon].utf8.allSatisfy { byte in
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "+"), UInt8(ascii: "-"),
                UInt8(ascii: "."):
                true
            default: false
            }
        }
        return isScheme ? colon..<index(colon, offsetBy: mark.count) : nil
    }
}
