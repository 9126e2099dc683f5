// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import ArgumentParser
internal import BlockReplication
internal import DeviceProbe
internal import Glibc
internal import WireProtocol

/// The options that `sync`, `refresh`, `verify` and `benchmark` share.
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

    @Option(
        help: ArgumentHelp(
            "Try a lost connection to a server again for so long, such as 10s, 5m or 2h; 0 ends "
                + "the run at once (default: 30s).", valueName: "duration"))
    var retryFor: TimeSpan?

    @OptionGroup var credentials: Credentials

    @Option(help: "Progress on standard error: auto, bar, json or none.")
    var progress = ProgressStyle.auto

    @Flag(help: "Print the result as one JSON object.")
    var json = false

    @Flag(name: .shortAndLong, help: "Tell more.")
    var verbose = false

    @Flag(name: .shortAndLong, help: "Print errors and warnings only.")
    var quiet = false

    /// Parsed once; `validate` reports a wrong location.
    @Argument(help: "What is read.", completion: .file(), transform: Location.parsed)
    var source: Result<Location, WireError>

    @Argument(
        help: "What is made equal to it, or compared with it.", completion: .file(),
        transform: Location.parsed)
    var target: Result<Location, WireError>

    func validate() throws {
        let operands: Operands
        do throws(ReplicationError) {
            try options().check()
            operands = try self.operands
        } catch {
            throw ValidationError(error.message)
        }
        if operands.source.isStandardInput, isatty(STDIN_FILENO) == 1 {
            throw ValidationError("-: standard input is a terminal; pipe a stream into it")
        }
        for location in [operands.source, operands.target] {
            // `blkferry -q verify A`, or a command of another version. It is never a file of that
            // name.
            if Self.commandNames.contains(location.description) {
                throw ValidationError(
                    "\(location): commands come first; a file is ./\(location)")
            }
            guard let remote = location.remote else { continue }
            do throws(WireError) { try credentials.check(remote) } catch {
                throw ValidationError(error.reason)
            }
        }
    }

    static let commandNames: Set = [
        "sync", "verify", "list", "serve", "benchmark", "refresh", "token",
        "replicas", "rollback", "digest", "diff", "apply", "help",
    ]

    var operands: Operands {
        get throws(ReplicationError) { try Operands(source, target) }
    }

    var console: Console { Console(isVerbose: verbose, isQuiet: quiet) }

    /// The options of a run, without the credentials.
    func options() -> Replication.Options {
        var options = Replication.Options()
        options.blockSize = blockSize?.bytes
        options.digest = hashMethod
        options.concurrency = concurrency
        options.bytesPerSecond = bwlimit?.bytes
        if let retryFor { options.retryFor = retryFor.duration }
        return options
    }
}

extension Operands {
    var remotes: [RemoteLocation] { [source, target].compactMap(\.remote) }

    /// Refuses a device or an image that the program's output goes to.
    ///
    /// It silences that output first, so that not even the refusal is written into the device.
    func refuseOwnOutput() throws(CommandFailure) {
        for case .local(let selector) in [source, target] where selector != .path("-") {
            let streams = StandardStreams.sharing(selector)
            guard let first = streams.first else { continue }
            for stream in streams { StandardDescriptors.silence(stream) }
            let refusal = StandardStreams.refusal(of: selector.description, descriptor: first)
            throw CommandFailure(refusal)
        }
    }
}
