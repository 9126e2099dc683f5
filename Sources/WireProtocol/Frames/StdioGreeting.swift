// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

/// The line that `blkferry serve --stdio` writes before HTTP (docs/protocol.md).
package enum StdioGreeting {
    package static let protocolNumber = 1
    /// Bytes of other text that a client skips.
    package static let searchLimit = 4096

    private static let start = "blkferry stdio "

    /// With its newline.
    package static func line(version: String) -> [UInt8] {
        Array("\(start)\(protocolNumber) \(version)\n".utf8)
    }

    package enum Finding: Hashable, Sendable {
        case unfinished
        /// The greeting, with nothing before it.
        case greeted
        /// A greeting of another protocol, by a program of that version.
        case other(version: String)
        /// Other text, which starts with this line.
        case chatter(String)
    }

    /// - Parameters:
    ///   - bytes: all so far, but none behind the greeting.
    ///   - isAll: whether no more follow.
    package static func find(in bytes: [UInt8], isAll: Bool = false) -> Finding {
        let newline = UInt8(ascii: "\n")
        let lines = bytes.split(separator: newline, omittingEmptySubsequences: false).map {
            String(decoding: $0, as: UTF8.self)
        }
        // Text behind the last newline is no complete line.
        let complete = lines.dropLast()
        if let first = complete.first, first.hasPrefix(start) {
            let words = first.dropFirst(start.count).split(separator: " ")
            if words.first == "\(protocolNumber)" { return .greeted }
            return .other(version: words.dropFirst().joined(separator: " "))
        }
        let isHopeless =
            isAll || bytes.count >= searchLimit || complete.contains { $0.hasPrefix(start) }
        guard isHopeless else { return .unfinished }
        let text = lines.first { $0.contains { !$0.isWhitespace } } ?? ""
        return .chatter(String(text.prefix(80)).filter { $0 != "\r" })
    }
}
