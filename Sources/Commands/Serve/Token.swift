// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import ArgumentParser
internal import CLinuxBlock
internal import Digests
internal import LinuxIO
internal import WireProtocol

struct Token: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Make a token for a server's token file.",
        discussion: """
            A line of that file is NAME TOKEN [ro] [SELECTOR…]: the name for the log, whether \
            the token may only read, and the exports that it sees; all of them without a \
            selector. Further words restrict it: expires=DATE, from=ADDRESS/LENGTH[,…], \
            max-size=SIZE, append-only. In place of the token a line may have its digest \
            (sha256:…, which --hash prints), user:NAME for the processes of a user on a unix \
            socket, or - for a client's certificate of that name.
            """)

    @Flag(help: "Also print its digest, for a token file that does not contain the token.")
    var hash = false

    @Option(
        help: ArgumentHelp(
            "With --hash: print the digest of the token in this file, and make none.",
            valueName: "path"),
        completion: .file())
    var tokenFile: String?

    func validate() throws {
        if tokenFile != nil && !hash { throw ValidationError("--token-file goes with --hash") }
    }

    func run() throws {
        let console = Console()
        clb_forbid_core_dumps()
        let text: String
        do throws(CommandFailure) { text = try output() } catch {
            console.error(error.message, advice: error.advice)
            throw CommandEnd(status: error.status)
        }
        guard console.result(text) else { throw CommandEnd(status: .deviceError) }
    }

    private func output() throws(CommandFailure) -> String {
        guard hash else { return try Self.make() }
        guard let tokenFile else {
            let token = try Self.make()
            return "\(token)\n\(try Self.atRest(token))"
        }
        let text = try readCredential(tokenFile, .token)
        let token: String
        do throws(WireError) {
            token = try WireProtocol.token(inFile: text, named: tokenFile)
        } catch {
            throw CommandFailure(.usage, error.reason)
        }
        return try Self.atRest(token)
    }

    private static func atRest(_ token: String) throws(CommandFailure) -> String {
        do throws(IOError) { return try TokenEntry.atRest(token) } catch {
            throw CommandFailure(.deviceError, "token: \(error.reason)")
        }
    }

    /// Makes a token of 256 random bits in base64url (RFC 4648, section 5), without padding.
    static func make() throws(CommandFailure) -> String {
        let bytes: [UInt8]
        do throws(IOError) { bytes = try DigestKey().withUnsafeBytes { Array($0) } } catch {
            throw CommandFailure(.deviceError, "token: \(error.reason)")
        }
        return base64(bytes, isForURLs: true)
    }
}
