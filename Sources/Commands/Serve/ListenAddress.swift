// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockServer
internal import Glibc
internal import LinuxIO
internal import WireProtocol

/// The address of `--listen`.
struct ListenAddress: Hashable {
    let address: BlockServer.Options.Address

    /// The address of `--stdio`.
    static let standardStreams = ListenAddress(.standardStreams)

    init(_ address: BlockServer.Options.Address) { self.address = address }

    /// Parses `PORT`, `ADDRESS:PORT`, `[IPV6]:PORT` or `unix:PATH`.
    init(_ text: String) throws(WireError) {
        if text.hasPrefix("unix:") {
            let path = String(text.dropFirst(5))
            // sun_path of unix(7) has 108 bytes, one of them the NUL.
            guard (1..<108).contains(path.utf8.count) else {
                throw WireError("\(text): the path must have 1 to 107 bytes")
            }
            address = .unix(path)
            return
        }
        let colon = text.lastIndex(of: ":")
        let hasPort =
            colon.map { Self.isIPv6(text[..<$0]) && UInt16(text[text.index(after: $0)...]) != nil }
            ?? false
        if !hasPort, Self.isIPv6(text[...]) {
            throw WireError(
                "\(text): an IPv6 address is written in brackets, and its port follows: [\(text)]:8080"
            )
        }
        let digits = colon.map { text[text.index(after: $0)...] } ?? text[...]
        guard let port = UInt16(digits), digits.utf8.allSatisfy({ $0 != UInt8(ascii: "+") }) else {
            throw WireError("\(text): not [ADDRESS:]PORT nor unix:PATH")
        }
        var host = colon.map { String(text[..<$0]) } ?? "127.0.0.1"
        if host.hasPrefix("[") && host.hasSuffix("]") {
            host = String(host.dropFirst().dropLast())
        } else if host.contains(":") {
            throw WireError("\(text): an IPv6 address is written in brackets: [\(host)]:\(port)")
        }
        guard !host.isEmpty else { throw WireError("\(text): the address is missing") }
        address = .host(host, port: Int(port))
    }

    private static func isIPv6(_ text: Substring) -> Bool {
        var parsed = in6_addr()
        return inet_pton(AF_INET6, String(text), &parsed) == 1
    }

    var isLocal: Bool {
        switch address {
        case .unix, .standardStreams: true
        case .host(let host, _): host == "localhost" || host == "::1" || Self.isLoopback(host)
        }
    }

    /// 127.0.0.0/8 (RFC 1122, section 3.2.1.3).
    private static func isLoopback(_ host: String) -> Bool {
        var parsed = in_addr()
        guard inet_pton(AF_INET, host, &parsed) == 1 else { return false }
        return UInt32(bigEndian: parsed.s_addr) >> 24 == 127
    }

    /// Formats address and port for a client; `port` is the one that the system chose for 0.
    func description(port: Int?) -> String {
        switch address {
        case .unix, .standardStreams: "\(address)"
        case .host(let host, let asked):
            "\(BlockServer.Options.Address.host(host, port: port ?? asked))"
        }
    }
}

extension ListenAddress {
    /// Lists the URLs of a server at this address, best first; `port` is the one that the system
    /// chose for 0.
    ///
    /// The list is empty for a unix socket with TLS or an abstract name, for which clients have no
    /// URL. A wildcard address gives one URL for each address of the machine.
    func urls(port: Int?, isTLS: Bool) -> [String] {
        if case .unix(let path) = address {
            return isTLS || path.hasPrefix("@") ? [] : [Self.location(ofSocket: path)]
        }
        guard case .host(_, let asked) = address else { return [] }
        let scheme = isTLS ? "https" : "http"
        return hosts.map {
            "\(scheme)://\(BlockServer.Options.Address.host($0, port: port ?? asked))"
        }
    }

    /// Formats a unix socket for a client in any directory, without characters that a shell or the
    /// location itself would interpret.
    private static func location(ofSocket path: String) -> String {
        var whole = path
        if !path.hasPrefix("/"), let directory = try? canonicalPath(".") {
            whole = "\(directory)/\(path)"
        }
        let isPlain = whole.split(separator: "/").allSatisfy { percentEncoded(String($0)) == $0 }
        return isPlain ? "unix:\(whole)" : "http+unix://\(percentEncoded(whole))"
    }

    /// The hosts of these URLs, best first.
    var hosts: [String] {
        guard case .host(let host, _) = address else { return [] }
        switch host {
        case "0.0.0.0": return Self.addressesOfMachine(AF_INET)
        // A socket of "::" takes IPv4 connections as well (ipv6(7), IPV6_V6ONLY).
        case "::": return Self.addressesOfMachine(AF_INET) + Self.addressesOfMachine(AF_INET6)
        default: return [host]
        }
    }

    /// Lists the addresses by which other machines may reach this one, without IPv6 addresses of a
    /// single link, which a URL cannot name.
    ///
    /// The corresponding C function is `getifaddrs`.
    private static func addressesOfMachine(_ family: Int32) -> [String] {
        var first: UnsafeMutablePointer<ifaddrs>?
        guard getifaddrs(&first) == 0 else { return [] }
        defer { freeifaddrs(first) }
        var addresses: [String] = []
        var next = first
        while let entry = next {
            next = entry.pointee.ifa_next
            let flags = Int32(bitPattern: entry.pointee.ifa_flags)
            let wanted = Int32(IFF_UP)
            guard flags & (wanted | Int32(IFF_LOOPBACK)) == wanted,
                let address = entry.pointee.ifa_addr, Int32(address.pointee.sa_family) == family
            else { continue }
            var text = [CChar](repeating: 0, count: Int(NI_MAXHOST))
            let length = socklen_t(
                family == AF_INET
                    ? MemoryLayout<sockaddr_in>.size : MemoryLayout<sockaddr_in6>.size)
            if getnameinfo(
                address, length, &text, socklen_t(text.count), nil, 0, NI_NUMERICHOST) == 0
            {
                let host = String(
                    decoding: text.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
                if !host.contains("%") { addresses.append(host) }
            }
        }
        return addresses
    }
}
