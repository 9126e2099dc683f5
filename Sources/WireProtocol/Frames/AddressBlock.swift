// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc

/// A block such as `192.0.2.0/24` or `2001:db8::/32`, or one address (RFC 4632, RFC 4291).
package struct AddressBlock: Hashable, Sendable {
    /// 16 bytes; IPv4 as an IPv4-mapped IPv6 address (RFC 4291, section 2.5.5.2).
    private let bytes: [UInt8]
    /// Bits of the common prefix.
    private let length: Int

    /// Parses a block, and refuses an address with bits behind the prefix.
    package init(_ text: String) throws(WireError) {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
        guard let first = parts.first, parts.count <= 2, let bytes = Self.bytes(first) else {
            throw WireError("\(text): not an address, nor a block such as 192.0.2.0/24")
        }
        let isIPv4 = !first.contains(":")
        let most = isIPv4 ? 32 : 128
        var length = most
        if parts.count == 2 {
            guard let number = Int(parts[1]), (0...most).contains(number), parts[1].utf8.first != 43
            else { throw WireError("\(text): the length of the block is not 0 to \(most)") }
            length = number
        }
        self.bytes = bytes
        self.length = length + 128 - most
        guard Self.masked(bytes, self.length) == bytes else {
            throw WireError("\(text): the address has bits behind the first \(length)")
        }
    }

    /// Whether the block contains an address; `false` for other text.
    package func contains(_ address: String) -> Bool {
        // A link-local address is followed by its interface.
        let bare = String(address.prefix { $0 != "%" })
        return Self.bytes(bare).map { Self.masked($0, length) == bytes } ?? false
    }

    private static func bytes(_ text: String) -> [UInt8]? {
        var four = in_addr()
        if inet_pton(AF_INET, text, &four) == 1 {
            let prefix = [UInt8](repeating: 0, count: 10) + [0xFF, 0xFF]
            return prefix + withUnsafeBytes(of: four) { Array($0) }
        }
        var six = in6_addr()
        return inet_pton(AF_INET6, text, &six) == 1 ? withUnsafeBytes(of: six) { Array($0) } : nil
    }

    private static func masked(_ bytes: [UInt8], _ length: Int) -> [UInt8] {
        bytes.enumerated().map { index, byte in
            let bits = min(max(length - index * 8, 0), 8)
            return bits == 0 ? 0 : byte & (0xFF << UInt8(8 - bits))
        }
    }
}
