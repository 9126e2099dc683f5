// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import ArgumentParser
internal import BlockClient
internal import WireProtocol

/// Programs that a refresh starts; blkferry-replicas(5) has their environment.
struct HookOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Start this before the snapshot is taken; if it fails, the run ends with 2.",
            valueName: "command"))
    var beforeSnapshot: HookCommand?

    @Option(
        help: ArgumentHelp(
            "Start this after --before-snapshot and the snapshot, also if one of them failed or "
                + "the run was killed.", valueName: "command"))
    var afterSnapshot: HookCommand?

    @Option(
        help: ArgumentHelp("Start this at the end of each run.", valueName: "command"))
    var afterRun: HookCommand?

    @Option(
        help: ArgumentHelp(
            "Start this at the end of a run that does not end with 0.", valueName: "command"))
    var onFailure: HookCommand?

    @Flag(help: "Only start what a run that was killed has not started any more of these.")
    var finishKilled = false

    /// The commands that are given.
    var commands: [Hooks.Moment: HookCommand] {
        let all: [Hooks.Moment: HookCommand?] = [
            .beforeSnapshot: beforeSnapshot, .afterSnapshot: afterSnapshot, .afterRun: afterRun,
            .onFailure: onFailure,
        ]
        return all.compactMapValues { $0 }
    }
}

/// A program and its arguments, in words as a shell splits them.
struct HookCommand: ExpressibleByArgument, Sendable {
    let program: String
    let arguments: [String]

    init?(argument: String) {
        guard let words = try? shellWords(argument), let program = words.first else { return nil }
        self.program = program
        arguments = Array(words.dropFirst())
    }
}
