// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import ArgumentParser
internal import CLinuxBlock
internal import DeviceProbe
internal import Glibc
internal import LinuxIO

/// The program and its subcommands.
package struct Blkferry: ParsableCommand {
    package static let version = "0.1.0"

    package static let configuration = CommandConfiguration(
        commandName: "blkferry",
        abstract: "Makes one block device the exact replica of another, moving only what differs.",
        usage: """
            blkferry [sync] [<options>] <source> <target>
            blkferry verify [<options>] <source> <target>
            blkferry refresh [<options>] <source> <target>
            blkferry refresh --config <name> [<options>]
            blkferry verify --config <name> [<options>]
            blkferry serve [<options>]
            blkferry list [--json] [<url>]
            blkferry benchmark [-B <n>] [<options>] <source> <target>
            blkferry digest [<options>] <source> -o <file>
            blkferry verify --digest <file> [<options>] <target>
            blkferry replicas [--json | --metrics] [<name>]
            blkferry rollback [<options>] <journal> [<target>]
            blkferry diff [<options>] -o <delta> <source> <target>
            blkferry diff [<options>] -o <delta> --since <snapshot> <source>
            blkferry diff [<options>] -o <delta> --digest <file> <source>
            blkferry apply [<options>] <delta> <target>
            blkferry token [--hash]
            """,
        discussion: """
            SOURCE and TARGET are devices or disk images: a path, or UUID=, LABEL=, PARTUUID=, \
            PARTLABEL= or LVUUID= and a value. One of them may be on another host: \
            http://host:8080/PATH, https://, ssh://user@host/PATH or user@host:/PATH; on a unix \
            socket it is unix:SOCKET:/PATH. Nothing is written to a target that is in use or \
            holds something else, and exit status 0 means that the replica is on the medium.
            """,
        version: version,
        subcommands: [
            Sync.self, Verify.self, Refresh.self, Digest.self, Replicas.self, RollBack.self,
            Diff.self, Apply.self, Serve.self, List.self, Benchmark.self, Token.self,
        ],
        defaultSubcommand: Sync.self)

    package init() {}

    package static func start() -> Never {
        guard StandardDescriptors.occupy() else { ExitStatus.deviceError.endProgram() }
        _ = StopTimer.programStart
        // For every command, so that no program that blkferry starts inherits the token.
        _ = EnvironmentToken.value
        // glibc would reserve 64 MiB of address space for an arena of each thread.
        if Memory.isLimited { clb_limit_arenas(1) }
        endInOrderOnSignals()
        // Before anything is printed: a message must not be written into a disk.
        for stream in StandardStreams.onDisks() {
            guard StandardDescriptors.silence(stream) else { ExitStatus.deviceError.endProgram() }
        }
        guard let arguments = programArguments() else {
            Console().error(
                "arguments: read: one is not UTF-8",
                advice: "Name the file by a symbolic link to it.")
            ExitStatus.usage.endProgram()
        }
        guard !arguments.isEmpty else {
            // Help without success, because a script with empty variables has synced nothing.
            Console().status(helpMessage() + "\n")
            ExitStatus.usage.endProgram()
        }
        if let name = misleadingName(in: arguments) {
            let status = usageError(
                "Unknown option '\(name)'",
                advice: "A file of that name is ./\(name); -h alone prints help.", arguments)
            status.endProgram()
        }
        run(withSubcommand(arguments)).endProgram()
    }

    /// Runs one command, or one for each target of a replica's file.
    ///
    /// - Returns: the status of the first run that failed. A run that ended early is the last one.
    private static func run(_ arguments: [String]) -> ExitStatus {
        var commands: [any ParsableCommand] = []
        do {
            commands = try ReplicaFile.expand(arguments).map {
                try parseAsRoot(DigestOptions.expand($0))
            }
        } catch {
            return report(error, arguments)
        }
        var result = ExitStatus.done
        for var command in commands {
            do { try command.run() } catch {
                let status = report(error, arguments)
                if result == .done { result = status }
                if [.interrupted, .stopped].contains(status) { break }
            }
        }
        return result
    }

    /// Adds `serve` to arguments with `--listen` or `-l`, for callers of pdiffcopy, which has no
    /// subcommands.
    static func withSubcommand(_ arguments: [String]) -> [String] {
        guard arguments.first?.hasPrefix("-") == true else { return arguments }
        let isServer = arguments.prefix { $0 != "--" }.contains {
            $0 == "--listen" || $0.hasPrefix("--listen=") || $0.hasPrefix("-l")
        }
        return isServer ? ["serve"] + arguments : arguments
    }

    /// Ends the program with its exit status on a signal; before a run starts, nothing needs to be
    /// finished.
    private static func endInOrderOnSignals() {
        for number in [SIGINT, SIGTERM, SIGHUP] {
            let before = signal(number) { _ in ExitStatus.interrupted.endProgram() }
            if before.map({ unsafeBitCast($0, to: Int.self) }) == 1 { signal(number, SIG_IGN) }
        }
        // Beyond the limit of the file size write(2) then fails, as on a full disk.
        signal(SIGXFSZ, SIG_IGN)
        // If the caller ignores it, the exit statuses of ssh and LVM are lost.
        signal(SIGCHLD, SIG_DFL)
    }

    /// The option letters of all commands; `-h` must stand alone.
    private static let letters = Set("bcmoBlnqvW")

    /// Finds an argument that may be a file name with a leading dash; `nil` if there is none.
    ///
    /// Such a word has letters that no option has. The parser would take a single letter of it,
    /// such as an `h`, for an option.
    static func misleadingName(in arguments: [String]) -> String? {
        arguments.prefix { $0 != "--" }.first { word in
            guard word.hasPrefix("-"), !word.hasPrefix("--"), word != "-", word != "-h" else {
                return false
            }
            return !word.dropFirst().prefix { $0 != "=" }.allSatisfy(letters.contains)
        }
    }

    private static func report(_ error: any Error, _ arguments: [String]) -> ExitStatus {
        if let status = error as? CommandEnd { return status.status }
        if let failure = error as? CommandFailure { return fail(failure, arguments) }
        // The parser throws help and version, too.
        guard exitCode(for: error) != .success else {
            return Console().result(message(for: error)) ? .done : .deviceError
        }
        let whole = message(for: error)
        // A line break may be the parser's, or part of an argument. The parser's first line is
        // sufficient.
        let isQuoting = arguments.contains { $0.unicodeScalars.contains(where: isControl) }
        let text =
            isQuoting
            ? escaped(whole) : whole.split(separator: "\n").first.map(String.init) ?? ""
        return usageError(text, advice: "See blkferry --help.", arguments)
    }

    private static func usageError(
        _ text: String, advice: String, _ arguments: [String]
    ) -> ExitStatus {
        fail(CommandFailure(.usage, "usage: \(text)", advice: advice), arguments)
    }

    /// Prints an error, but not into a device or an image that an argument names.
    ///
    /// A result or a log may have the name of a command, as in `blkferry verify A B > verify`.
    private static func fail(_ failure: CommandFailure, _ arguments: [String]) -> ExitStatus {
        let paths = arguments.filter { !ComparisonOptions.commandNames.contains($0) }
        for stream in StandardStreams.named(by: paths) { StandardDescriptors.silence(stream) }
        Console().error(failure.message, advice: failure.advice)
        return failure.status
    }
}

/// Ends the program after a command has printed everything.
struct CommandEnd: Error {
    var status: ExitStatus
}
