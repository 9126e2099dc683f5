// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import ArgumentParser
internal import BlockReplication
internal import WireProtocol

/// Options of `sync` for a source that fails.
struct MapOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Copy a failing SOURCE, with this GNU ddrescue mapfile of what is read and what "
                + "failed: good areas first; another run tries only what is missing.",
            valueName: "file"),
        completion: .file())
    var map: String?

    @Option(
        help: ArgumentHelp(
            "With --map: leave a place of SOURCE that does not answer for so long, and come back to "
                + "it last.", valueName: "duration"))
    var readTimeout: TimeSpan?

    func validate() throws {
        if map == "" { throw ValidationError("--map: a file is missing") }
        guard let readTimeout else { return }
        if map == nil { throw ValidationError("--read-timeout goes with --map") }
        if readTimeout.duration <= .zero {
            throw ValidationError("--read-timeout: must be more than 0")
        }
    }

    /// - Parameter others: the options that do not go with a map, and whether they were given.
    func validate(_ common: ComparisonOptions, _ others: [(String, Bool)]) throws {
        guard map != nil else { return }
        if let other = others.first(where: \.1) {
            throw ValidationError("--map does not go with \(other.0)")
        }
        let operands = try common.operands
        if operands.source.remote != nil || operands.target.remote != nil {
            throw ValidationError(
                "--map: SOURCE and TARGET must be on this machine; copy to an image here, and then "
                    + "that to the server")
        }
    }

    func apply(to options: inout Replication.Options) {
        guard let map else { return }
        var mapfile = Replication.Mapfile(path: map)
        mapfile.readTimeout = readTimeout?.duration
        options.mapfile = mapfile
    }
}
