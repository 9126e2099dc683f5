// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

/// A call of pdiffcopy's protocol, version 1.0.
///
/// Source: pdiffcopy 1.0.1, `server.py`; the query is `application/x-www-form-urlencoded`.
package struct PdiffcopyCall: Hashable, Sendable {
    package enum Endpoint: String, CaseIterable, Hashable, Sendable {
        /// `GET /info?filename`: the size.
        case info
        /// `GET /hashes?filename&block_size&method`: the digests of all blocks.
        case hashes
        /// `GET /blocks?filename&offset&size` and `POST /blocks?filename&offset`.
        case blocks
        /// `POST /resize?filename&size`.
        case resize
    }

    package var endpoint: Endpoint
    package var query: String

    package init(_ endpoint: Endpoint, query: String) {
        self.endpoint = endpoint
        self.query = query
    }

    /// Parses the target of a request; `nil` for a path that is none of pdiffcopy's.
    package init?(_ target: some StringProtocol) {
        guard let (parts, query) = segments(of: target), parts.count == 1,
            let endpoint = Endpoint(rawValue: parts[0])
        else { return nil }
        self.init(endpoint, query: query)
    }

    /// With the query.
    package var path: String { "/\(endpoint.rawValue)?\(query)" }

    /// For `Allow`.
    package var methods: [String] {
        switch endpoint {
        case .info, .hashes: ["GET", "HEAD"]
        case .blocks: ["GET", "POST"]
        case .resize: ["POST"]
        }
    }

    /// Maximum bytes of a block, which one request carries.
    package static let maximumBlock = 64 << 20

    /// Bytes of a block if the request does not say.
    package static let defaultBlock = 1 << 20

    /// The first value of a parameter; `nil` if it is missing.
    ///
    /// It throws if the value is not UTF-8 text without NUL.
    package func text(_ name: String) throws(WireError) -> String? {
        for pair in query.utf8.split(separator: UInt8(ascii: "&")) {
            let parts = pair.split(
                separator: UInt8(ascii: "="), maxSplits: 1, omittingEmptySubsequences: false)
            guard let key = Self.decoded(parts[0]), key.utf8.elementsEqual(name.utf8) else {
                continue
            }
            guard let value = Self.decoded(parts.count > 1 ? parts[1] : "".utf8[...]) else {
                throw WireError("\(name): its percent signs do not stand for UTF-8 text")
            }
            return value
        }
        return nil
    }

    /// The parameter `filename`, which must be an absolute path.
    package func filename() throws(WireError) -> String {
        guard let path = try text("filename") else { throw WireError("filename is missing") }
        guard path.utf8.first == UInt8(ascii: "/") else {
            throw WireError("filename is not an absolute path")
        }
        return path
    }

    /// A parameter that must consist of digits and be within the range.
    ///
    /// - Parameter standard: the default; `nil` for a required parameter.
    package func number(
        _ name: String, in range: ClosedRange<Int>, default standard: Int? = nil
    ) throws(WireError) -> Int {
        guard let text = try text(name) else {
            if let standard { return standard }
            throw WireError("\(name) is missing")
        }
        let isDigits = text.utf8.allSatisfy { (UInt8(ascii: "0")...UInt8(ascii: "9")) ~= $0 }
        guard isDigits, let number = Int(text), range.contains(number) else {
            throw WireError(
                range.upperBound == .max
                    ? "\(name) is not a number from \(range.lowerBound)"
                    : "\(name) is not a number from \(range.lowerBound) to \(range.upperBound)")
        }
        return number
    }

    /// A plus means a space.
    private static func decoded(_ bytes: Substring.UTF8View) -> String? {
        let space = bytes.map { $0 == UInt8(ascii: "+") ? UInt8(ascii: " ") : $0 }
        return String(validating: space, as: UTF8.self).flatMap { percentDecoded($0) }
    }
}
