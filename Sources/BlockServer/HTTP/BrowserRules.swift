// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
internal import NIOHTTP1
internal import WireProtocol

/// Rejects requests that web pages make a browser send.
///
/// A browser sends requests for any page to any address that it reaches, also to a server that
/// listens on loopback only.
enum BrowserRules {
    /// The names in `Host` that a server without tokens accepts.
    ///
    /// By DNS rebinding, a page's own name can resolve to the server's address for a while. The
    /// browser then treats the server as the page's own, but still sends the page's name in `Host`.
    enum Hosts: Sendable {
        /// A unix socket or a pipe, which no browser connects to.
        case any
        /// Loopback addresses and names that stand for them.
        case loopback
        /// Any address, and names that no one can register on the internet: this machine's own, and
        /// names without a dot.
        case local
    }

    /// Rejects requests of web pages from other sites: programs send neither `Origin` (RFC 6454)
    /// nor `Sec-Fetch-Site` (Fetch Metadata).
    static func rejectForeignPage(_ head: HTTPRequestHead) -> Response? {
        let sites = head.headers["Sec-Fetch-Site"].map { $0.lowercased() }
        guard
            head.headers.contains(name: "Origin")
                || !sites.allSatisfy({ $0 == "none" || $0 == "same-origin" })
        else { return nil }
        return forbidden("a web page of another site sent the request")
    }

    /// Rejects a request whose `Host`, or the authority of its whole-URL target, is not the
    /// server's.
    static func rejectForeignHost(
        _ head: HTTPRequestHead, authority: String?, _ hosts: Hosts
    ) -> Response? {
        let names = head.headers["Host"] + (authority.map { [$0] } ?? [])
        guard let wrong = names.first(where: { !isOurs($0, hosts) }) else { return nil }
        return forbidden(
            "the server does not answer to the name \(wrong.prefix(100))",
            advice: "Ask for it by its address, or give the server a token file.")
    }

    private static func forbidden(_ detail: String, advice: String? = nil) -> Response {
        Response(
            .unauthorized, status: 403, "The request may come from a web page", detail: detail,
            advice: advice)
    }

    /// Whether a `Host`, with or without a port, cannot be a rebound name.
    static func isOurs(_ host: String, _ hosts: Hosts) -> Bool {
        let name = name(of: host).lowercased()
        switch hosts {
        case .any: return true
        case .loopback: return isLoopback(name)
        case .local:
            return isLoopback(name) || isAddress(name) || !name.isEmpty && !name.contains(".")
                || name == hostName
        }
    }

    /// Removes port, brackets and the root's dot; empty for a malformed `Host`.
    private static func name(of host: String) -> String {
        if host.hasPrefix("[") {
            guard let end = host.firstIndex(of: "]"), isPort(host[end...].dropFirst()) else {
                return ""
            }
            return String(host[..<end].dropFirst())
        }
        let name = host.prefix { $0 != ":" }
        guard isPort(host[name.endIndex...]) else { return "" }
        return String(name.hasSuffix(".") ? name.dropLast() : name)
    }

    /// Whether the text after a host is a port (RFC 3986, section 3.2.3, allows a colon without
    /// digits).
    private static func isPort(_ text: Substring) -> Bool {
        guard let colon = text.first else { return true }
        let digits = text.dropFirst().utf8
        return colon == ":" && digits.count <= 5
            && digits.allSatisfy { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }
    }

    private static func isAddress(_ name: String) -> Bool {
        var four = in_addr()
        var six = in6_addr()
        return inet_pton(AF_INET, name, &four) == 1 || inet_pton(AF_INET6, name, &six) == 1
    }

    /// 127.0.0.0/8, also IPv4-mapped, ::1, and `localhost` (RFC 6761, section 6.3).
    private static func isLoopback(_ name: String) -> Bool {
        if name == "localhost" || name.hasSuffix(".localhost") { return true }
        let mapped = "::ffff:"
        let bare = name.hasPrefix(mapped) ? String(name.dropFirst(mapped.count)) : name
        var four = in_addr()
        if inet_pton(AF_INET, bare, &four) == 1 {
            return UInt32(bigEndian: four.s_addr) >> 24 == 127
        }
        var six = in6_addr()
        guard inet_pton(AF_INET6, name, &six) == 1 else { return false }
        return withUnsafeBytes(of: six) { $0.dropLast().allSatisfy { $0 == 0 } && $0.last == 1 }
    }

    private static var hostName: String {
        var name = [CChar](repeating: 0, count: 256)
        guard gethostname(&name, name.count - 1) == 0 else { return "" }
        return String(decoding: name.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
            .lowercased()
    }
}
