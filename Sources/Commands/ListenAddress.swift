// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockServer
internal import Glibc
internal import WireProtocol

/// What `--listen` says.
struct ListenAddress: Hashable {
    let address: BlockServer.Options.Address

    /// No address at all: `--stdio`.
    static let standardStreams = ListenAddress(.standardStreams)

    private init(_ address: BlockServer.Options.Address) { self.address = address }

    /// Reads `PORT`, `ADDRESS:PORT`, `[IPV6]:PORT` or `unix:PATH`.
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

    /// Whether only this machine can connect to it.
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

    /// As a client would write it.
    ///
    /// - Parameter port: the one that the system gave where 0 was asked for.
    /// - Returns: address and port.
    func description(port: Int?) -> String {
        switch address {
        case .unix, .standardStreams: "\(address)"
        case .host(let host, let asked):
            "\(BlockServer.Options.Address.host(host, port: port ?? asked))"
        }
    }
}

extension ListenAddress {
    /// The URLs under which a server there is reached, best first.
    ///
    /// - Parameters:
    ///   - port: the one that the system gave where 0 was asked for.
    ///   - isTLS: whether it speaks TLS.
    /// - Returns: one, but for an address that stands for all of the machine's: then one for each
    ///   of these; none for a unix socket.
    func urls(port: Int?, isTLS: Bool) -> [String] {
        guard case .host(_, let asked) = address else { return [] }
        let scheme = isTLS ? "https" : "http"
        return hosts.map {
            "\(scheme)://\(BlockServer.Options.Address.host($0, port: port ?? asked))"
        }
    }

    /// The addresses under which a server there is reached, best first.
    var hosts: [String] {
        guard case .host(let host, _) = address else { return [] }
        return ["0.0.0.0", "::"].contains(host) ? Self.addressesOfMachine() : [host]
    }

    /// Addresses that other machines may reach this one by.
    ///
    /// The corresponding C function is `getifaddrs`.
    private static func addressesOfMachine() -> [String] {
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
                let address = entry.pointee.ifa_addr, address.pointee.sa_family == AF_INET
            else { continue }
            var text = [CChar](repeating: 0, count: Int(NI_MAXHOST))
            let length = socklen_t(MemoryLayout<sockaddr_in>.size)
            if getnameinfo(
                address, length, &text, socklen_t(text.count), nil, 0, NI_NUMERICHOST) == 0
            {
                addresses.append(
                    String(
                        decoding: text.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)),
                        as: UTF8.self))
            }
        }
        return addresses
    }
}
