// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
internal import LinuxIO

/// `blkferry serve` as a process of its own; it is killed when the test forgets it.
package final class ServeProcess {
    package private(set) var process: RunningProgram
    package let port: Int
    private let reservation: OwnedDescriptor
    private let host: String
    private let arguments: [String]
    /// The program, and what goes before it.
    private let command: [String]

    /// Starts it and waits until it listens.
    ///
    /// - Parameters:
    ///   - exports: as after `--export`.
    ///   - host: where it listens, an IPv6 address in brackets.
    ///   - options: further ones.
    ///   - prefix: what goes before the command.
    ///   - binary: the program.
    /// - Throws: when it does not come to listen.
    package init(
        _ exports: String..., on host: String = "127.0.0.1", options: [String] = [],
        prefix: [String] = [], binary: String = program
    ) throws {
        self.host = host
        command = prefix + [binary]
        arguments = options + exports.flatMap { ["--export", $0] }
        let reservation = try Loopback.reservePort()
        port = try Loopback.port(of: reservation)
        self.reservation = reservation
        process = try Self.start(command, "\(host):\(port)", arguments)
    }

    private static func start(
        _ command: [String], _ address: String, _ arguments: [String]
    ) throws -> RunningProgram {
        let process = try RunningProgram(
            command + ["serve", "--listen", address] + arguments)
        let clock = ContinuousClock()
        let deadline = clock.now + .seconds(30)
        while clock.now < deadline {
            if try process.errorsSoFar().contains("listening\n") { return process }
            guard process.isRunning else { break }
            usleep(5_000)
        }
        throw NotListening(errors: try process.errorsSoFar())
    }

    /// The URL of a device: `selector` is a path or a tag.
    package func url(_ selector: String, on otherHost: String? = nil) -> String {
        let path = selector.hasPrefix("/") ? selector : "/\(selector)"
        let scheme = arguments.contains { $0.hasPrefix("--tls-") } ? "https" : "http"
        return "\(scheme)://\(otherHost ?? host):\(port)\(path)"
    }

    /// Ends it as a power cut would.
    package func kill() throws {
        process.signal(SIGKILL)
        _ = try process.wait()
    }

    /// Starts it again on the same port.
    package func startAgain() throws {
        process = try Self.start(command, "\(host):\(port)", arguments)
    }

    package func log() throws -> String { try process.errorsSoFar() }
}
