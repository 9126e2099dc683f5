// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
internal import LinuxIO
internal import WireProtocol

/// The proxy that the environment names for a server.
///
/// libcurl can read the environment itself, but does not report what it found. The client therefore
/// chooses by libcurl's rules (libcurl-env(3), CURLOPT_NOPROXY(3)). Unlike libcurl, it never uses a
/// proxy for this machine.
struct Proxy: Hashable, Sendable {
    /// The variable's value, including a user's name and password.
    let url: String
    let variable: String

    /// Chooses the proxy for a server; `nil` for none.
    init?(
        for location: RemoteLocation,
        environment: (String) -> String? = { name in getenv(name).map { String(cString: $0) } },
        localNames: () -> Set<String> = { Self.localNames() }
    ) {
        func value(_ names: [String]) -> (name: String, text: String)? {
            for name in names {
                if let text = environment(name), !text.isEmpty { return (name, text) }
            }
            return nil
        }
        let own: [String]
        switch location.scheme {
        // `HTTP_PROXY` could come from the client of a CGI program (httpoxy.org).
        case .http: own = ["http_proxy"]
        case .https: own = ["https_proxy", "HTTPS_PROXY"]
        case .ssh, .unix: return nil
        }
        guard let found = value(own + ["all_proxy", "ALL_PROXY"]) else { return nil }
        guard !Self.isLocal(location.host, localNames) else { return nil }
        let exceptions = value(["no_proxy", "NO_PROXY"])?.text ?? ""
        guard !Self.isException(location.host, exceptions) else { return nil }
        (variable, url) = found
    }

    /// The proxy and its variable for messages, without the user's name and password; valid only
    /// without a `fault`.
    var description: String { "\(parts.scheme)://\(parts.place) (\(variable))" }
}

extension Proxy {
    private struct Parts {
        var scheme: Substring
        var login: Substring
        var place: Substring
        /// The text after host and port.
        var rest: Substring
    }

    private var parts: Parts {
        let scheme = url.range(of: "://")
        let text = scheme.map { url[$0.upperBound...] } ?? url[...]
        let authority = text.prefix { !"/?#".contains($0) }
        let at = authority.lastIndex(of: "@")
        return Parts(
            scheme: scheme.map { url[..<$0.lowerBound] } ?? "http",
            login: authority[..<(at ?? authority.startIndex)],
            place: at.map { authority[authority.index(after: $0)...] } ?? authority,
            rest: text[authority.endIndex...])
    }

    /// The schemes of CURLOPT_PROXY(3).
    private static let schemes = ["http", "https", "socks4", "socks4a", "socks5", "socks5h"]

    /// The reason why libcurl cannot use the proxy; `nil` if it can.
    ///
    /// The reason contains nothing of the URL. libcurl's own message would show the user's name and
    /// password.
    var fault: String? {
        let parts = parts
        let place = parts.place
        guard Self.schemes.contains(parts.scheme.lowercased()) else {
            return "its scheme is not one of \(Self.schemes.joined(separator: ", "))"
        }
        // libcurl would end the password there, or start the host.
        if parts.rest.contains("@") { return "an @ follows a slash, a question mark or a #" }
        if parts.login.contains("@") { return "it has several @" }
        let end =
            place.first == "[" ? place.firstIndex(of: "]").map { place.index(after: $0) } : nil
        let host = end.map { place[..<$0] } ?? place.prefix { $0 != ":" }
        guard !host.isEmpty else { return "its host is missing" }
        let isHost =
            end != nil
            ? Address(String(host.dropFirst().dropLast()))?.bytes.count == 16
            : host.unicodeScalars.allSatisfy { $0.value > 0x20 && !Self.noHost.contains($0) }
        guard isHost else { return "its host is neither a name nor an address" }
        // A colon may stand without a port.
        let port = place[host.endIndex...].utf8
        let digits = port.dropFirst()
        let isPort =
            (port.first ?? UInt8(ascii: ":")) == UInt8(ascii: ":")
            && digits.allSatisfy { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }
            && (digits.isEmpty || UInt16(String(Substring(digits))) != nil)
        guard isPort else { return "its port is not a number up to 65535" }
        return nil
    }

    /// Characters that libcurl does not accept in a host (`hostname_check` in lib/urlapi.c).
    private static let noHost: [Unicode.Scalar] = [
        "\u{7F}", "/", ":", "#", "?", "!", "@", "{", "}", "[", "]", "\\", "$", "'", "\"", "^", "`",
        "*", "<", ">", "=", ";", ",", "&", "(", ")", "+", "%", "|",
    ]

    /// Replaces the URL in a text, since it may contain a user's name and password.
    func hidden(in text: String) -> String {
        guard let found = text.range(of: url) else { return text }
        let rest = hidden(in: String(text[found.upperBound...]))
        return "\(text[..<found.lowerBound])\(parts.scheme)://\(parts.place)\(rest)"
    }
}

extension Proxy {
    static func isLocal(_ host: String) -> Bool { isLocal(host) { localNames() } }

    private static func isLocal(_ host: String, _ localNames: () -> Set<String>) -> Bool {
        if let address = Address(host) { return address.isLoopback }
        let name = bare(host)
        // RFC 6761, section 6.3.
        return name == "localhost" || name.hasSuffix(".localhost") || localNames().contains(name)
    }

    static func localNames() -> Set<String> {
        localNames(in: readSmallFile("/etc/hosts") ?? "")
    }

    /// Reads the names of loopback addresses from a hosts(5) file.
    static func localNames(in hosts: String) -> Set<String> {
        var names: Set<String> = []
        for line in hosts.split(whereSeparator: \.isNewline) {
            let words = line.prefix { $0 != "#" }.split(whereSeparator: \.isWhitespace)
            guard let first = words.first, Address(String(first))?.isLoopback == true else {
                continue
            }
            names.formUnion(words.dropFirst().map { bare(String($0)) })
        }
        return names
    }

    /// Normalizes a name: lower case, without a final dot.
    private static func bare(_ name: String) -> String {
        let name = name.lowercased()
        return name.hasSuffix(".") ? String(name.dropLast()) : name
    }

    /// Whether `no_proxy` lists a host: by its name, by a parent domain, by its address, or by a
    /// network in CIDR form; `*` lists all.
    static func isException(_ host: String, _ list: String) -> Bool {
        if list.trimmed == "*" { return true }
        let address = Address(host)
        return list.split { $0 == "," || $0.isWhitespace }.contains { entry in
            if let address { return address.isWithin(entry) }
            let domain = bare(String(entry.first == "." ? entry.dropFirst() : entry))
            let name = bare(host)
            return !domain.isEmpty && (name == domain || name.hasSuffix(".\(domain)"))
        }
    }

    private struct Address {
        /// 4 or 16 bytes.
        let bytes: [UInt8]

        /// Parses an address as libc does, including `127.1`; `nil` for a name.
        init?(_ text: String) {
            // The zone, as in fe80::1%eth0, is ignored.
            let text = String(text.prefix { $0 != "%" })
            var four = in_addr()
            var six = in6_addr()
            if inet_aton(text, &four) != 0 {
                bytes = withUnsafeBytes(of: &four) { Array($0) }
            } else if inet_pton(AF_INET6, text, &six) == 1 {
                let all = withUnsafeBytes(of: &six) { Array($0) }
                // An IPv4-mapped IPv6 address (RFC 4291, section 2.5.5.2).
                let isMapped = all[..<10].allSatisfy { $0 == 0 } && all[10] == 255 && all[11] == 255
                bytes = isMapped ? Array(all[12...]) : all
            } else {
                return nil
            }
        }

        /// Whether connecting to it reaches this machine: 127.0.0.0/8, ::1, and the unspecified
        /// addresses, which Linux treats alike.
        var isLoopback: Bool {
            if bytes.count == 4 { return bytes[0] == 127 || bytes == [0, 0, 0, 0] }
            return bytes.dropLast().allSatisfy { $0 == 0 } && (bytes.last ?? 2) < 2
        }

        /// Whether it is the given address, or in the given network.
        func isWithin(_ text: Substring) -> Bool {
            let parts = text.split(separator: "/", omittingEmptySubsequences: false)
            guard parts.count <= 2, let first = parts.first else { return false }
            let isBracketed = first.hasPrefix("[") && first.hasSuffix("]")
            let name = isBracketed ? first.dropFirst().dropLast() : first
            guard let network = Address(String(name)), network.bytes.count == bytes.count else {
                return false
            }
            guard parts.count == 2 else { return network.bytes == bytes }
            guard let length = Int(parts[1]), (0...8 * bytes.count).contains(length) else {
                return false
            }
            return (0..<bytes.count).allSatisfy { index in
                let bits = min(max(length - 8 * index, 0), 8)
                let mask = UInt8(truncatingIfNeeded: 0xFF00 >> bits)
                return (bytes[index] ^ network.bytes[index]) & mask == 0
            }
        }
    }
}

extension String {
    fileprivate var trimmed: Substring {
        var rest = self[...]
        while rest.first?.isWhitespace == true { rest.removeFirst() }
        while rest.last?.isWhitespace == true { rest.removeLast() }
        return rest
    }

    fileprivate func range(of text: String) -> Range<String.Index>? {
        var start = startIndex
        while start < endIndex {
            if self[start...].hasPrefix(text) {
                return start..<index(start, offsetBy: text.count)
            }
            start = index(after: start)
        }
        return nil
    }
}
