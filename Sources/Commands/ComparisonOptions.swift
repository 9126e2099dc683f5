// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import ArgumentParser
internal import BlockReplication
internal import WireProtocol

/// What `sync` and `verify` have in common.
struct ComparisonOptions: ParsableArguments {
    @Option(
        name: [.customShort("b"), .long],
        help: ArgumentHelp(
            "Unit of comparison and transfer, a multiple of 512 bytes.", valueName: "size"))
    var blockSize: ByteSize?

    @Option(
        name: [.customShort("c"), .long],
        help: ArgumentHelp(
            "Worker threads, each with a connection of its own where a server takes part "
                + "(default: two a processor, four with a server; two for a rotational disk).",
            valueName: "n"))
    var concurrency: Int?

    @Option(
        name: [.customShort("m"), .long],
        help: ArgumentHelp(
            "Digest that a device on a server is compared by (default: the fastest of gmac and "
                + "poly1305 on both machines).",
            valueName: "name"))
    var hashMethod: String?

    @Option(
        help: ArgumentHelp(
            "Bytes a second that go over the network at most, such as 10M.", valueName: "rate"))
    var bwlimit: ByteSize?

    @OptionGroup var credentials: Credentials

    @Option(help: "Progress on standard error: auto, bar, json or none.")
    var progress = ProgressStyle.auto

    @Flag(help: "Print the result as one JSON object.")
    var json = false

    @Flag(name: .shortAndLong, help: "Tell more.")
    var verbose = false

    @Flag(name: .shortAndLong, help: "Print errors and warnings only.")
    var quiet = false

    @Argument(help: "What is read.")
    var source: String

    @Argument(help: "What is made equal to it, or compared with it.")
    var target: String

    func validate() throws {
        do throws(ReplicationError) {
            try options().check(source: source, target: target)
        } catch {
            throw ValidationError(error.message)
        }
        for location in [source, target] {
            // `blkferry -q verify A`, or a command of another version: never a file of that name.
            if Self.commandNames.contains(location) {
                throw ValidationError(
                    "\(location): commands come first; a file is ./\(location)")
            }
            guard case .remote(let remote)? = try? Location(location) else { continue }
            do throws(WireError) { try credentials.check(remote) } catch {
                throw ValidationError(error.reason)
            }
        }
    }

    private static let commandNames: Set = [
        "sync", "verify", "list", "serve", "benchmark", "refresh", "token", "help",
    ]

    /// Whether a location, which has been looked at, is on a server.
    func isRemote(_ text: String) -> Bool {
        guard case .remote? = try? Location(text) else { return false }
        return true
    }

    var console: Console { Console(isVerbose: verbose, isQuiet: quiet) }

    /// What both commands have in common, but for what shows a server who asks.
    func options() -> Replication.Options {
        var options = Replication.Options()
        options.blockSize = blockSize?.bytes
        options.digest = hashMethod
        options.concurrency = concurrency
        options.bytesPerSecond = bwlimit?.bytes
        return options
    }
}
