// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import ArgumentParser
internal import BlockReplication
internal import DeviceProbe
internal import WireProtocol

/// Options of `verify` for a file of `blkferry digest` in place of SOURCE.
struct DigestOptions: ParsableArguments {
    /// `expand` has replaced it by `isSource` and the operand.
    @Option(
        help: ArgumentHelp(
            "Compare TARGET with a file of blkferry digest, which takes the place of SOURCE.",
            valueName: "file"),
        completion: .file())
    var digest: String?

    @Option(
        help: ArgumentHelp(
            "With --digest: refuse the file unless blkferry digest has printed this.",
            valueName: "hash"))
    var rootHash: VerityPin?

    @Flag(name: .customLong(Self.marker), help: .hidden)
    var isSource = false

    private static let marker = "source-is-digest"

    func validate() throws {
        if rootHash != nil && !isSource { throw ValidationError("--root-hash goes with --digest") }
    }

    func validate(_ common: ComparisonOptions, others: [(String, Bool)]) throws {
        guard isSource else { return }
        if try common.operands.target.remote != nil {
            throw ValidationError("--digest: TARGET must be on this machine")
        }
        let own = [
            ("--block-size", common.blockSize != nil), ("--hash-method", common.hashMethod != nil),
        ]
        let all = others + own
        if let other = all.first(where: \.1) {
            throw ValidationError("\(other.0) does not go with --digest")
        }
    }

    func apply(to options: inout Replication.Options) {
        options.comparesDigests = isSource
        options.pinnedDigests = rootHash?.digests
    }

    /// Puts the file of `verify --digest FILE` in the place of SOURCE.
    static func expand(_ arguments: [String]) throws(CommandFailure) -> [String] {
        let option = "--digest"
        var others = Array(arguments.dropFirst())
        func place() -> Int? {
            others.prefix { $0 != "--" }.firstIndex { $0 == option || $0.hasPrefix("\(option)=") }
        }
        guard arguments.first == "verify", let first = place() else { return arguments }
        let word = others.remove(at: first)
        var file = String(word.dropFirst(option.count + 1))
        if word == option {
            // The parser reports the missing file.
            guard first < others.count else { return arguments }
            file = others.remove(at: first)
        }
        guard place() == nil else {
            throw CommandFailure(.usage, "usage: \(option): it occurs twice")
        }
        guard !file.isEmpty, file != "-" else {
            throw CommandFailure(.usage, "usage: \(option): a file is missing")
        }
        // It is a path, whatever it looks like.
        let isPlain =
            Location.parsed(file) == .success(.local(.path(file))) && !file.hasPrefix("-")
            && !ComparisonOptions.commandNames.contains(file)
        return ["verify", "--\(marker)", isPlain ? file : "./\(file)"] + others
    }
}

/// `ROOT` or `ROOT:TAIL`, as `blkferry digest` prints it.
struct VerityPin: ExpressibleByArgument {
    let digests: VerityDigests

    init?(argument: String) {
        guard let digests = VerityDigests(argument) else { return nil }
        self.digests = digests
    }
}
