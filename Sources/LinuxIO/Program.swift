// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import CLinuxBlock
internal import Glibc
package import SystemPackage

/// Other programs that this one starts, without a shell.
package enum Program {
    /// What a program gets as its standard input, output and error; it inherits nothing else.
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

    /// Finds a program as a shell does.
    ///
    /// - Parameter name: a name that is looked up in PATH, or a path.
    /// - Returns: its path; `nil` where there is none that may be started.
    package static func find(_ name: String) -> String? {
        if name.contains("/") { return access(name, X_OK) == 0 ? name : nil }
        let path = getenv("PATH").map { String(cString: $0) } ?? "/usr/bin:/bin"
        return path.split(separator: ":").map { "\($0)/\(name)" }
            .first { access($0, X_OK) == 0 }
    }

    /// Finds one of the system's programs, also where PATH lacks their directories, as in cron.
    ///
    /// - Parameter name: a name, or a path.
    /// - Returns: its path; `nil` where there is none that may be started.
    package static func findOfSystem(_ name: String) -> String? {
        let places = name.contains("/") ? [name] : [name, "/usr/sbin/\(name)", "/sbin/\(name)"]
        return places.lazy.compactMap { find($0) }.first
    }

    /// Starts a program, with the signals that it expects.
    ///
    /// The corresponding C function is `posix_spawn`.
    ///
    /// - Parameters:
    ///   - path: the program's path.
    ///   - words: its name and its arguments.
    ///   - streams: of this process; they stay open here.
    ///   - inNewSession: apart from the terminal and its signals, as the leader of a process group
    ///     of its own (setsid(2)).
    /// - Returns: its process id, which somebody must wait for.
    /// - Throws: why it cannot be started.
    package static func start(
        _ path: String, _ words: [String], _ streams: Streams, inNewSession: Bool = false
    ) throws(Errno) -> Int32 {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        // All of ours are closed when the program starts, but for these, which dup2(2) makes. Those of
        // libraries are not: SwiftNIO's connections.
        posix_spawn_file_actions_adddup2(&actions, streams.input, STDIN_FILENO)
        posix_spawn_file_actions_adddup2(&actions, streams.output, STDOUT_FILENO)
        posix_spawn_file_actions_adddup2(&actions, streams.errors, STDERR_FILENO)
        clb_spawn_close_from(&actions, STDERR_FILENO + 1)
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        // What blkferry blocks and ignores for itself is no program's expectation.
        var none = sigset_t()
        sigemptyset(&none)
        var usual = sigset_t()
        sigemptyset(&usual)
        for number in [SIGPIPE, SIGXFSZ] { sigaddset(&usual, number) }
        posix_spawnattr_setsigmask(&attributes, &none)
        posix_spawnattr_setsigdefault(&attributes, &usual)
        var flags = Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF)
        if inNewSession { flags |= clb_POSIX_SPAWN_SETSID }
        posix_spawnattr_setflags(&attributes, flags)
        var arguments: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) }
        defer { for argument in arguments { free(argument) } }
        arguments.append(nil)
        var process: pid_t = 0
        let result = posix_spawn(
            &process, path, &actions, &attributes, arguments, clb_environment())
        guard result == 0 else { throw Errno(rawValue: result) }
        return process
    }
}
