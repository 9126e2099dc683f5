// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import ArgumentParser
internal import Glibc

/// The program: its subcommands and what they have in common.
package struct Blkferry: ParsableCommand {
    package static let version = "0.1.0"

    package static let configuration = CommandConfiguration(
        commandName: "blkferry",
        abstract: "Makes one block device the exact replica of another, moving only what differs.",
        usage: """
            blkferry [sync] [<options>] <source> <target>
            blkferry verify [<options>] <source> <target>
            blkferry list [--json]
            """,
        discussion: """
            SOURCE and TARGET are devices or disk images: a path, or UUID=, LABEL=, PARTUUID=, \
            PARTLABEL= or LVUUID= and a value. Nothing is written to a target that is in use or \
            holds something else, and exit status 0 means that the replica is on the medium.
            """,
        version: version,
        subcommands: [Sync.self, Verify.self, List.self],
        defaultSubcommand: Sync.self)

    package init() {}

    /// Runs the program and ends it.
    package static func start() -> Never {
        let arguments = Array(CommandLine.arguments.dropFirst())
        guard !arguments.isEmpty else {
            // Help, but not success: a script whose variables are empty has synced nothing.
            Console().status(helpMessage() + "\n")
            Glibc.exit(ExitStatus.usage.rawValue)
        }
        do {
            var command = try parseAsRoot(arguments)
            try command.run()
            Glibc.exit(ExitStatus.done.rawValue)
        } catch {
            Glibc.exit(report(error).rawValue)
        }
    }

    /// Prints what ended the program.
    private static func report(_ error: any Error) -> ExitStatus {
        if let status = error as? CommandEnd { return status.status }
        // Help and version come as errors, too.
        guard exitCode(for: error) != .success else {
            Console().result(message(for: error))
            return .done
        }
        let text = message(for: error).split(separator: "\n").first.map(String.init) ?? ""
        Console().error("usage: \(text)", advice: "See blkferry --help.")
        return .usage
    }
}

/// Ends the program after a command has printed all that there is to say.
struct CommandEnd: Error {
    var status: ExitStatus
}
