// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

/// The line that `blkferry serve --stdio` writes before it speaks HTTP (docs/protocol.md), and what
/// a client makes of it.
package enum StdioGreeting {
    /// Of what is spoken after the greeting.
    package static let protocolNumber = 1
    /// Bytes of other text that a client reads in search of it.
    package static let searchLimit = 4096

    private static let start = "blkferry stdio "

    /// The greeting of this version, with its newline.
    ///
    /// - Parameter version: of the program.
    /// - Returns: the bytes to write.
    package static func line(version: String) -> [UInt8] {
        Array("\(start)\(protocolNumber) \(version)\n".utf8)
    }

    /// What the bytes that came so far are.
    package enum Finding: Hashable, Sendable {
        /// No greeting yet, and there may be more to come.
        case unfinished
        /// The greeting, and nothing before it.
        case greeted
        /// A greeting of another protocol, by a program of that version.
        case other(version: String)
        /// Something else, which begins with this line.
        case chatter(String)
    }

    /// Judges what came.
    ///
    /// - Parameters:
    ///   - bytes: all that came so far; at most up to the end of the greeting.
    ///   - isAll: whether nothing more comes.
    /// - Returns: what it is.
    package static func find(in bytes: [UInt8], isAll: Bool = false) -> Finding {
        let newline = UInt8(ascii: "\n")
        let lines = bytes.split(separator: newline, omittingEmptySubsequences: false).map {
            String(decoding: $0, as: UTF8.self)
        }
        // What follows the last newline is no line yet.
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
