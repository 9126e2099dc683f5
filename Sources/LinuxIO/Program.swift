// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CLinuxBlock
internal import Glibc
package import SystemPackage

/// Starts other programs without a shell.
package enum Program {
    /// The standard streams of a program, which inherits no other descriptor.
    package struct Streams {
        package var input: Int32
        package var output: Int32
        package var errors: Int32

        package init(input: Int32, output: Int32, errors: Int32) {
            self.input = input
            self.output = output
            self.errors = errors
        }
    }

    /// Finds a program as a shell does; `nil` if there is no executable one.
    package static func find(_ name: String) -> String? {
        if name.contains("/") { return access(name, X_OK) == 0 ? name : nil }
        let path = getenv("PATH").map { String(cString: $0) } ?? "/usr/bin:/bin"
        return path.split(separator: ":").map { "\($0)/\(name)" }
            .first { access($0, X_OK) == 0 }
    }

    /// Finds a system program even if PATH lacks its directory, as under cron.
    package static func findOfSystem(_ name: String) -> String? {
        let places = name.contains("/") ? [name] : [name, "/usr/sbin/\(name)", "/sbin/\(name)"]
        return places.lazy.compactMap { find($0) }.first
    }

    /// Starts a program whose process the caller must wait for, without blocked or ignored signals.
    ///
    /// The corresponding C function is `posix_spawn`.
    ///
    /// - Parameters:
    ///   - words: the program's name and its arguments.
    ///   - variables: of the form `NAME=VALUE`, in addition to this program's environment.
    ///   - inNewSession: runs it without the terminal and its signals, in its own process group
    ///     (setsid(2)).
    package static func start(
        _ path: String, _ words: [String], _ streams: Streams, variables: [String] = [],
        inNewSession: Bool = false
    ) throws(Errno) -> Int32 {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        // blkferry opens every descriptor close-on-exec, but libraries do not (SwiftNIO's
        // connections), so all but these three are closed.
        posix_spawn_file_actions_adddup2(&actions, streams.input, STDIN_FILENO)
        posix_spawn_file_actions_adddup2(&actions, streams.output, STDOUT_FILENO)
        posix_spawn_file_actions_adddup2(&actions, streams.errors, STDERR_FILENO)
        clb_spawn_close_from(&actions, STDERR_FILENO + 1)
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        // A program does not expect the signals that blkferry blocks and ignores.
        var none = sigset_t()
        sigemptyset(&none)
        var usual = sigset_t()
        sigemptyset(&usual)
        for number in [SIGPIPE, SIGXFSZ, SIGCHLD] { sigaddset(&usual, number) }
        posix_spawnattr_setsigmask(&attributes, &none)
        posix_spawnattr_setsigdefault(&attributes, &usual)
        var flags = Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF)
        if inNewSession { flags |= clb_POSIX_SPAWN_SETSID }
        posix_spawnattr_setflags(&attributes, flags)
        var arguments: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) }
        defer { for argument in arguments { free(argument) } }
        arguments.append(nil)
        let added: [UnsafeMutablePointer<CChar>?] = variables.map { strdup($0) }
        defer { for variable in added { free(variable) } }
        var environment = environment(without: variables)
        environment += added + [nil]
        var process: pid_t = 0
        let result = posix_spawn(&process, path, &actions, &attributes, arguments, environment)
        guard result == 0 else { throw Errno(rawValue: result) }
        return process
    }

    /// This program's environment (environ(7)) without the variables of those names.
    private static func environment(
        without variables: [String]
    ) -> [UnsafeMutablePointer<CChar>?] {
        func name(_ variable: String) -> [UInt8] {
            Array(variable.utf8.prefix { $0 != UInt8(ascii: "=") })
        }
        let names = variables.map(name)
        var entries: [UnsafeMutablePointer<CChar>?] = []
        var rest = clb_environment()
        while let list = rest, let entry = list.pointee {
            if !names.contains(name(String(cString: entry))) { entries.append(entry) }
            rest = list + 1
        }
        return entries
    }
}
