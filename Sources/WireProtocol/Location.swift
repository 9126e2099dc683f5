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

/// A URL whose path is a selector: `http://host[:8080]/UUID=…`, `http://host/dev/vg0/root`,
/// `ssh://[user@]host[:port]/dev/vg0/root`.
package struct RemoteLocation: Hashable, Sendable {
    package enum Scheme: String, Hashable, Sendable {
        case http
        case https
        case ssh
    }

    package var scheme: Scheme
    /// Of ssh only; `nil` where its configuration is to tell.
    package var user: String?
    /// An IPv6 address without its brackets.
    package var host: String
    /// `nil` for ssh only, where its configuration is to tell.
    package var port: Int?
    /// `nil` for the server as a whole.
    package var selector: String?
    /// As the user wrote it.
    package var text: String

    package static let defaultPort = 8080

    /// What a server's ids begin with that are no selectors here.
    private static let idPrefixes = ["NAME=", "WWN=", "SERIAL="]

    /// Scheme, user, host and port.
    package var server: String {
        let name = host.contains(":") ? "[\(host)]" : host
        return "\(scheme.rawValue)://" + (user.map { "\($0)@" } ?? "") + name
            + (port.map { ":\($0)" } ?? "")
    }

    fileprivate init(scheme name: String, rest: Substring, text: String) throws(WireError) {
        guard let scheme = Scheme(rawValue: name) else {
            throw WireError("\(text): scheme \(name) is unknown: http, https or ssh")
        }
        self.scheme = scheme
        self.text = text
        guard !rest.unicodeScalars.contains(where: { $0.value <= 0x20 || $0.value == 0x7F }) else {
            throw WireError("\(text): it has white space; write it as %20")
        }
        guard !rest.contains("?"), !rest.contains("#") else {
            throw WireError("\(text): it has a query or fragment; write ? as %3F and # as %23")
        }
        let authority = rest.prefix { $0 != "/" }
        var place = authority
        if scheme == .ssh, let mark = authority.lastIndex(of: "@") {
            user = try Self.user(authority[..<mark], text)
            place = authority[authority.index(after: mark)...]
        }
        guard !place.contains("@") else {
            throw WireError("\(text): a user name or password does not belong into a URL")
        }
        (host, port) = try Self.hostAndPort(place, text)
        if scheme == .ssh {
            // It would be an option of ssh.
            guard !host.hasPrefix("-") else {
                throw WireError("\(text): \(host) is not a host's name")
            }
        } else {
            port = port ?? Self.defaultPort
        }
        let path = rest.dropFirst(authority.count)
        guard path != "", path != "/" else {
            selector = nil
            return
        }
        guard let decoded = percentDecoded(path) else {
            throw WireError("\(text): its percent signs do not stand for UTF-8 text")
        }
        let bare = Self.selector(inPath: decoded)
        let isTag = bare != decoded
        selector = bare
        if scheme == .ssh, isTag, !ExportSelector.isTag(bare) {
            throw WireError(
                "\(text): only a server that is running knows this name: say the path, or UUID= "
                    + "and the like")
        }
    }

    /// What a URL's path names: a tag, which stands without the slash, or the path itself.
    ///
    /// What looks like a tag in a directory keeps its slash.
    package static func selector(inPath path: String) -> String {
        // The slash alone: a combining mark after it would be one character with it.
        let bare = String(path.unicodeScalars.dropFirst())
        let isTag = ExportSelector.isTag(bare) || idPrefixes.contains { bare.hasPrefix($0) }
        return isTag ? bare : path
    }

    private static func user(_ name: Substring, _ text: String) throws(WireError) -> String {
        guard !name.contains(":") else {
            throw WireError("\(text): a password does not belong into a URL")
        }
        let isName = name.utf8.allSatisfy { isHostByte($0) || $0 == UInt8(ascii: "+") }
        guard !name.isEmpty, !name.hasPrefix("-"), isName else {
            throw WireError("\(text): \(name) is not a user's name")
        }
        return String(name)
    }

    private static func hostAndPort(
        _ host: Substring, _ text: String
    ) throws(WireError) -> (String, Int?) {
        var name = host
        var port: String?
        let colon = host.lastIndex(of: ":")
        if let colon, !host.hasSuffix("]"), colon != host.startIndex {
            name = host[..<colon]
            port = String(host[host.index(after: colon)...])
        }
        guard !name.isEmpty else { throw WireError("\(text): it has no host") }
        if name.hasPrefix("[") {
            guard let address = ipv6Address(name) else {
                throw WireError("\(text): \(name) is not an IPv6 address")
            }
            name = address[...]
        } else {
            guard !name.contains(":") else {
                throw WireError("\(text): an IPv6 address is written in brackets: [\(host)]")
            }
            guard name.utf8.allSatisfy(isHostByte) else {
                throw WireError("\(text): \(name) is not a host's name")
            }
        }
        guard let port else { return (String(name), nil) }
        guard let number = Int(port), (1...65535).contains(number),
            port.utf8.allSatisfy({ hexDigit($0).map { $0 < 10 } ?? false })
        else { throw WireError("\(text): port \(port): must be from 1 to 65535") }
        return (String(name), number)
    }

    /// What stands in brackets, with a zone as in `[fe80::1%25eth0]` (RFC 6874) or without the 25.
    private static func ipv6Address(_ name: Substring) -> String? {
        guard name.hasSuffix("]") else { return nil }
        let inner = name.dropFirst().dropLast()
        let address = inner.prefix { $0 != "%" }
        let isAddress = address.utf8.allSatisfy {
            hexDigit($0) != nil || $0 == UInt8(ascii: ":") || $0 == UInt8(ascii: ".")
        }
        guard isAddress, address.contains(":") else { return nil }
        guard address.endIndex < inner.endIndex else { return String(address) }
        var zone = inner[inner.index(after: address.endIndex)...]
        if zone.hasPrefix("25") { zone = zone.dropFirst(2) }
        guard !zone.isEmpty, !zone.hasPrefix("25"), zone.utf8.allSatisfy(isHostByte) else {
            return nil
        }
        return "\(address)%\(zone)"
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
