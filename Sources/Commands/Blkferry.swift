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
            blkferry refresh [<options>] <source> <target>
            blkferry serve [<options>]
            blkferry list [--json] [<url>]
            blkferry benchmark [-B <n>] [<options>] <source> <target>
            blkferry token
            """,
        discussion: """
            SOURCE and TARGET are devices or disk images: a path, or UUID=, LABEL=, PARTUUID=, \
            PARTLABEL= or LVUUID= and a value. Nothing is written to a target that is in use or \
            holds something else, and exit status 0 means that the replica is on the medium.
            """,
        version: version,
        subcommands: [
            Sync.self, Verify.self, Refresh.self, Serve.self, List.self, Benchmark.self, Token.self,
        ],
        defaultSubcommand: Sync.self)

    package init() {}

    /// Runs the program and ends it.
    package static func start() -> Never {
        occupyStandardDescriptors()
        endInOrderOnSignals()
        guard let arguments = readArguments() else {
            Console().error(
                "arguments: read: one is not UTF-8",
                advice: "Name the file by a symbolic link to it.")
            Glibc.exit(ExitStatus.usage.rawValue)
        }
        guard !arguments.isEmpty else {
            // Help, but not success: a script whose variables are empty has synced nothing.
            Console().status(helpMessage() + "\n")
            Glibc.exit(ExitStatus.usage.rawValue)
        }
        do {
            var command = try parseAsRoot(withSubcommand(arguments))
            try command.run()
            Glibc.exit(ExitStatus.done.rawValue)
        } catch {
            Glibc.exit(report(error).rawValue)
        }
    }

    /// Understands what starts a server of pdiffcopy, which has no subcommands.
    ///
    /// - Parameter arguments: as given.
    /// - Returns: the same, or what they mean.
    static func withSubcommand(_ arguments: [String]) -> [String] {
        guard arguments.first?.hasPrefix("-") == true else { return arguments }
        let isServer = arguments.prefix { $0 != "--" }.contains {
            $0 == "--listen" || $0.hasPrefix("--listen=") || $0.hasPrefix("-l")
        }
        return isServer ? ["serve"] + arguments : arguments
    }

    /// Opens /dev/null where the caller has closed standard input, output or error: else a device
    /// would get that number, and a message would be written into it.
    private static func occupyStandardDescriptors() {
        for descriptor in STDIN_FILENO...STDERR_FILENO where fcntl(descriptor, F_GETFD) == -1 {
            // open(2) takes the lowest number that is free.
            _ = Glibc.open("/dev/null", O_RDWR)
        }
    }

    /// Until a run watches over signals there is nothing to finish; they only get their status.
    private static func endInOrderOnSignals() {
        for number in [SIGINT, SIGTERM, SIGHUP] {
            let before = signal(number) { _ in _exit(ExitStatus.interrupted.rawValue) }
            if before.map({ unsafeBitCast($0, to: Int.self) }) == 1 { signal(number, SIG_IGN) }
        }
        // Over a limit of file size write(2) then fails, as on a full disk.
        signal(SIGXFSZ, SIG_IGN)
    }

    /// The arguments; `nil` when they cannot be told exactly: repaired, they would name another
    /// file.
    private static func readArguments() -> [String]? {
        var arguments: [String] = []
        for index in 1..<max(1, Int(CommandLine.argc)) {
            guard let raw = CommandLine.unsafeArgv[index], let text = String(validatingCString: raw)
            else { return nil }
            arguments.append(text)
        }
        return arguments
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
