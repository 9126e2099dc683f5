// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

/// A request of pdiffcopy's protocol (version 1.0): one of its endpoints, and its parameters.
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
    /// As it came, after the question mark.
    package var query: String

    package init(_ endpoint: Endpoint, query: String) {
        self.endpoint = endpoint
        self.query = query
    }

    /// Bytes of a block at most, which come in one request.
    package static let maximumBlock = 64 << 20

    /// Bytes of a block where none are asked for.
    package static let defaultBlock = 1 << 20

    /// A parameter's value; of one that stands there more than once, the first.
    ///
    /// - Returns: `nil` where it is missing.
    /// - Throws: when its percent signs do not stand for UTF-8 text without NUL.
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

    /// The path of what is meant.
    ///
    /// - Throws: when it is missing, or no absolute path.
    package func filename() throws(WireError) -> String {
        guard let path = try text("filename") else { throw WireError("filename is missing") }
        guard path.utf8.first == UInt8(ascii: "/") else {
            throw WireError("filename is not an absolute path")
        }
        return path
    }

    /// A parameter that is a number.
    ///
    /// - Parameters:
    ///   - name: of the parameter.
    ///   - range: what it may be.
    ///   - standard: what it is where it is missing; `nil` where it must not be.
    /// - Returns: the number.
    /// - Throws: when it is missing, is something else than digits, or beyond the range.
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

    /// Text in which a plus stands for a space.
    private static func decoded(_ bytes: Substring.UTF8View) -> String? {
        let space = bytes.map { $0 == UInt8(ascii: "+") ? UInt8(ascii: " ") : $0 }
        return String(validating: space, as: UTF8.self).flatMap { percentDecoded($0) }
    }
}
