// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

// Public, as the conformance of the library's type to the parser's protocol is.
public import ArgumentParser
public import BlockReplication
internal import Zstandard

/// `--compress`, of commands that move data.
struct CompressOption: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Compression of data to or from a server: auto where that is faster, none, zstd, or "
                + "zstd:1 to zstd:19.",
            valueName: "how"))
    var compress = Replication.Options.Compression.auto
}

extension Replication.Options.Compression: ExpressibleByArgument {
    public init?(argument: String) {
        switch argument {
        case "auto": self = .auto
        case "none": self = .none
        case "zstd": self = .zstd(level: Zstd.defaultLevel)
        default:
            // No sign, and no leading zero.
            let level = Zstd.levels.first { argument == "zstd:\($0)" }
            guard let level else { return nil }
            self = .zstd(level: level)
        }
    }

    public var defaultValueDescription: String {
        switch self {
        case .auto: "auto"
        case .none: "none"
        case .zstd(let level): "zstd:\(level)"
        }
    }
}
