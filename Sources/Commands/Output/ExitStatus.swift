// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockReplication
internal import Glibc
internal import LinuxIO

/// The exit status of the process; scripts rely on it (docs/exit-statuses.md).
enum ExitStatus: Int32 {
    case done = 0
    /// A comparison found differences.
    case different = 1
    /// The safety gate or the size policy refused; nothing was written.
    case refused = 2
    /// An I/O error on a device.
    case deviceError = 3
    /// An error of the network, or an invalid answer.
    case networkError = 4
    /// The server rejected the client, or the client does not trust the server.
    case unauthorized = 5
    /// Finished, but unreadable blocks of the source were left out.
    case unreadable = 6
    /// `--stop-after` ended the run before it was finished.
    case stopped = 7
    /// Wrong usage (`EX_USAGE` of sysexits.h).
    case usage = 64
    /// Ended by a signal.
    case interrupted = 130

    /// Ends the program at once, without the exit handlers of libraries.
    ///
    /// Other threads may still run, such as one that waits for a silent disk. libcrypto's handler
    /// would free what they use. Nothing is left to do at exit: `Console` writes without a buffer.
    func endProgram() -> Never { _exit(rawValue) }
}

/// Why a command failed: a message of one line, an exit status, and advice.
struct CommandFailure: Error {
    var status: ExitStatus
    /// Object, operation and reason.
    var message: String
    var advice: String?
    /// The cause of a refusal, for scripts.
    var cause: String?

    init(_ status: ExitStatus, _ message: String, advice: String? = nil) {
        self.status = status
        self.message = message
        self.advice = advice
    }

    init(_ error: IOError) { self.init(ReplicationError(error)) }

    init(_ error: ReplicationError) {
        let status: ExitStatus =
            switch error.kind {
            case .invalid: .usage
            case .refused: .refused
            case .device: .deviceError
            case .network: .networkError
            case .unauthorized: .unauthorized
            case .different: .different
            case .interrupted: .interrupted
            }
        self.init(status, error.message, advice: error.advice)
        cause = error.cause
    }
}
