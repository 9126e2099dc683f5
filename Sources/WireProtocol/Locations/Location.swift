// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import DeviceProbe

package enum Location: Hashable, Sendable {
    case local(Selector)
    case remote(RemoteLocation)

    /// Parses a URL, scp's form of a URL, or a selector.
    package init(_ text: String) throws(WireError) {
        if text.utf8.starts(with: RemoteLocation.unixPrefix.utf8) {
            self = .remote(try RemoteLocation(unixPlace: text))
        } else if let separator = text.range(ofScheme: "://") {
            self = .remote(
                try RemoteLocation(
                    scheme: text[..<separator.lowerBound].lowercased(),
                    rest: text[separator.upperBound...],
                    text: text))
        } else if let place = ScpPlace(text) {
            self = .remote(try RemoteLocation(place, text: text))
        } else {
            try Self.checkTag(text)
            self = .local(Selector(text))
        }
    }

    /// Parses a text now, for a fault that is reported later.
    package static func parsed(_ text: String) -> Result<Location, WireError> {
        Result { () throws(WireError) in try Location(text) }
    }

    package var local: Selector? {
        if case .local(let selector) = self { selector } else { nil }
    }

    package var remote: RemoteLocation? {
        if case .remote(let location) = self { location } else { nil }
    }

    /// Tags of a server's devices, and of udev's links in fstab(5), which name no device here.
    private static let foreignTags = ["NAME", "WWN", "SERIAL", "ID"]

    /// Throws if a text looks like a tag and is none: it would be a new file's name.
    private static func checkTag(_ text: String) throws(WireError) {
        guard !ExportSelector.isTag(text), let equals = text.utf8.firstIndex(of: UInt8(ascii: "="))
        else { return }
        let tags = Selector.Tag.allCases.map(\.rawValue)
        guard (tags + foreignTags).contains(text[..<equals].uppercased()) else { return }
        throw WireError(
            "\(text): the tags of this machine's devices are "
                + tags.map { "\($0)=" }.joined(separator: ", ")
                + "; a local file of that name is ./\(text)")
    }
}

extension Location: CustomStringConvertible {
    /// As the user wrote it.
    package var description: String {
        switch self {
        case .local(let selector): selector.description
        case .remote(let location): location.text
        }
    }
}

/// The scp form `[user@]host:path`, with a colon before the first slash.
private struct ScpPlace {
    var authority: String
    var path: String

    /// Splits text; `nil` for a local selector, such as `./a:b` or `LABEL=a:b`.
    init?(_ text: String) {
        guard !ExportSelector.isTag(text) else { return nil }
        // Compare bytes, because a combining mark forms one character with the colon before it.
        let head = text.utf8.prefix { $0 != UInt8(ascii: "/") }
        let afterUser = head.lastIndex(of: UInt8(ascii: "@")).map { head.index(after: $0) }
        let host = head[(afterUser ?? head.startIndex)...]
        // An IPv6 address has its colons within brackets.
        let bracket = host.first == UInt8(ascii: "[") ? host.firstIndex(of: UInt8(ascii: "]")) : nil
        let colon =
            host[(bracket ?? host.startIndex)...].firstIndex(of: UInt8(ascii: ":"))
            // An @ behind the colon is part of the path.
            ?? head.firstIndex(of: UInt8(ascii: ":"))
        guard let colon else { return nil }
        authority = String(Substring(text.utf8[..<colon]))
        path = String(Substring(text.utf8[text.utf8.index(after: colon)...]))
    }
}

/// The location of a device on a server: a URL whose path is a selector, or a short form.
///
/// `http://host[:8080]/UUID=…`, `http://host/dev/vg0/root`,
/// `ssh://[user@]host[:port]/dev/vg0/root`, `[user@]host:/dev/vg0/root` (ssh),
/// `unix:/run/blkferry.sock:/dev/vg0/root`, `http+unix://%2Frun%2Fblkferry.sock/dev/vg0/root`.
package struct RemoteLocation: Hashable, Sendable {
    package enum Scheme: String, Hashable, Sendable {
        case http
        case https
        case ssh
        case unix = "http+unix"
    }

    package var scheme: Scheme
    /// Only with ssh; `nil` leaves it to ssh's configuration.
    package var user: String?
    /// An IPv6 address has no brackets here; `localhost` for a unix socket.
    package var host: String
    package var socket: String?
    /// `nil` only with ssh, whose configuration then decides.
    package var port: Int?
    /// `nil` for the whole server.
    package var selector: String?
    /// As the user wrote it.
    package var text: String

    package static let defaultPort = 8080

    /// Prefixes of a server's ids that are not selectors on this machine.
    private static let idPrefixes = ["NAME=", "WWN=", "SERIAL="]

    /// The server as a location without a selector, such as `http://host:8080`.
    package var server: String {
        if let socket {
            let isShort =
                !socket.utf8.contains(UInt8(ascii: ":")) && !socket.utf8.starts(with: "//".utf8)
            return isShort
                ? Self.unixPrefix + socket : "\(scheme.rawValue)://\(percentEncoded(socket))"
        }
        let name = host.contains(":") ? "[\(host)]" : host
        return "\(scheme.rawValue)://" + (user.map { "\($0)@" } ?? "") + name
            + (port.map { ":\($0)" } ?? "")
    }

    /// Parses scp's form, without percent decoding of the path, which must be absolute.
    ///
    /// The meaning of a relative path would depend on the server, and a local file without `./`
    /// looks the same.
    fileprivate init(_ place: ScpPlace, text: String) throws(WireError) {
        guard Scheme(rawValue: place.authority.lowercased()) == nil else {
            throw WireError("\(text): a URL has two slashes: \(place.authority)://host/path")
        }
        do throws(WireError) {
            let isTag = ExportSelector.isTag(place.path)
            guard isTag || place.path.isEmpty || place.path.utf8.first == UInt8(ascii: "/") else {
                throw WireError("\(text): a path on another host must begin with a slash")
            }
            let path = isTag ? place.path[...] : Substring(place.path.unicodeScalars.dropFirst())
            let url = "\(place.authority)/\(percentEncoded(String(path)))"
            try self.init(scheme: Scheme.ssh.rawValue, rest: url[...], text: text)
        } catch {
            throw WireError("\(error.reason); a local file of that name is ./\(text)")
        }
    }

    init(scheme: Scheme, host: String, text: String) {
        self.scheme = scheme
        self.host = host
        self.text = text
    }

    fileprivate init(scheme name: String, rest: Substring, text: String) throws(WireError) {
        guard let scheme = Scheme(rawValue: name) else {
            throw WireError("\(text): scheme \(name) is unknown: http, https, http+unix or ssh")
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
        let path = rest.dropFirst(authority.count)
        guard scheme != .unix else {
            guard let socket = percentDecoded(authority) else {
                throw WireError("\(text): its percent signs do not stand for UTF-8 text")
            }
            host = Self.unixHost
            try setSocket(socket)
            selector = try Self.selector(inURL: path, text)
            return
        }
        var place = authority
        if scheme == .ssh, let at = authority.lastIndex(of: "@") {
            user = try Self.user(authority[..<at], text)
            place = authority[authority.index(after: at)...]
        }
        guard !place.contains("@") else {
            throw WireError("\(text): a user name or password does not belong into a URL")
        }
        (host, port) = try Self.hostAndPort(place, text)
        if scheme == .ssh {
            // ssh would take it for an option.
            guard !host.hasPrefix("-") else {
                throw WireError("\(text): \(host) is not a host's name")
            }
        } else {
            port = port ?? Self.defaultPort
        }
        selector = try Self.selector(inURL: path, text)
        if scheme == .ssh, let bare = selector, bare.utf8.first != UInt8(ascii: "/"),
            !ExportSelector.isTag(bare)
        {
            throw WireError(
                "\(text): only a server that is running knows this name: say the path, or UUID= "
                    + "and the like")
        }
    }

    private static func selector(
        inURL path: Substring, _ text: String
    ) throws(WireError) -> String? {
        guard path != "", path != "/" else { return nil }
        guard let decoded = percentDecoded(path) else {
            throw WireError("\(text): its percent signs do not stand for UTF-8 text")
        }
        return selector(inPath: decoded)
    }

    /// The selector in a URL's path: a tag without the slash, or the path itself.
    ///
    /// A tag within a directory keeps its slash.
    package static func selector(inPath path: String) -> String {
        // Drop only the slash, because a combining mark behind it forms one character with it.
        let bare = String(path.unicodeScalars.dropFirst())
        let isTag =
            ExportSelector.isTag(bare) || idPrefixes.contains { bare.utf8.starts(with: $0.utf8) }
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
                throw WireError(
                    "\(text): an IPv6 address is written in brackets: \(bracketed(host))")
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

    /// An IPv6 address in brackets, for a message; a port that seems to follow it stays outside.
    private static func bracketed(_ host: Substring) -> String {
        guard let colon = host.lastIndex(of: ":") else { return "[\(host)]" }
        let (address, port) = (host[..<colon], host[host.index(after: colon)...])
        let isPort = port.utf8.allSatisfy { hexDigit($0).map { $0 < 10 } ?? false }
        let isWhole = address.hasSuffix("::") || !address.hasSuffix(":")
        let groups = address.split(separator: ":", omittingEmptySubsequences: false).count
        guard isPort, !port.isEmpty, isWhole, groups == 8 || hasGap(address),
            ipv6Address("[\(address)]") != nil
        else { return "[\(host)]" }
        return "[\(address)]:\(port)"
    }

    private static func hasGap(_ address: Substring) -> Bool {
        address.split(separator: ":", omittingEmptySubsequences: false).dropFirst().dropLast()
            .contains("")
            || address.hasPrefix("::") || address.hasSuffix("::")
    }

    /// The address in brackets, with a zone as in `[fe80::1%25eth0]` (RFC 6874) or without the 25.
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
    /// The end of a scheme, which has letters, digits, `+`, `-` and `.` (RFC 3986, 3.1).
    fileprivate func range(ofScheme mark: String) -> Range<String.Index>? {
        // Compare bytes, because a combining mark forms one character with the slash before it.
        guard let colon = utf8.firstIndex(of: UInt8(ascii: ":")), colon > startIndex,
            utf8[colon...].starts(with: mark.utf8)
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
        return isScheme ? colon..<utf8.index(colon, offsetBy: mark.utf8.count) : nil
    }
}
