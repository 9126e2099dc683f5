// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import ArgumentParser
internal import Digests

/// `blkferry token`: makes a token.
struct Token: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Make a token for a server's token file.",
        discussion: """
            A line of that file is NAME TOKEN [ro] [SELECTOR…]: whom the log names, whether it \
            may only read, and which exports it may see; all of them without a selector.
            """)

    func run() throws {
        let console = Console()
        let token: String
        do throws(CommandFailure) { token = try Self.make() } catch {
            console.error(error.message, advice: error.advice)
            throw CommandEnd(status: error.status)
        }
        guard console.result(token) else { throw CommandEnd(status: .deviceError) }
    }

    /// 256 random bits, in the letters of a URL (RFC 4648, section 5), without padding.
    static func make() throws(CommandFailure) -> String {
        let bytes: [UInt8]
        do throws(DigestError) { bytes = try DigestKey().withUnsafeBytes { Array($0) } } catch {
            throw CommandFailure(.deviceError, "token: \(error.reason)")
        }
        return base64(bytes, isForURLs: true)
    }
}
