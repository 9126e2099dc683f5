// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
package import WireProtocol

/// Why ssh did not come to a server's greeting, in a line for the user.
package struct SSHFailure {
    /// How ssh ended.
    package enum Ending: Hashable, Sendable {
        case exit(Int)
        case signal(Int)
        /// It still runs.
        case none
    }
    package var ending: Ending
    /// What it, and the command over there, wrote to standard error.
    package var lines: [String]
    /// What came in place of a greeting.
    package var finding: StdioGreeting.Finding
    package var command: SSHCommand

    package init(
        _ ending: Ending, lines: [String], finding: StdioGreeting.Finding, _ command: SSHCommand
    ) {
        self.ending = ending
        self.lines = lines
        self.finding = finding
        self.command = command
    }

    /// Status with which ssh reports an error of its own (ssh(1)).
    private static let ownError = 255

    /// What it means.
    package var error: HTTPError {
        if case .other(let version) = finding {
            return unreachable(
                "the blkferry there, version \(version), speaks another protocol", Self.sameVersion)
        }
        if ending == .exit(Self.ownError) { return connectionError }
        if case .chatter(let text) = finding, !text.isEmpty {
            return unreachable(
                "something else than blkferry speaks there: \"\(text)\"",
                "A shell's start files must print nothing where there is no terminal.")
        }
        let name = command.remoteCommand
        switch ending {
        case .exit(127):
            return unreachable(
                "\(name) is not found there",
                "Install it there; --remote-command names it where it is elsewhere.")
        case .exit(126):
            return unreachable(
                "\(name) cannot be run there: \(lastLine ?? "no permission")",
                "--remote-command names another one.")
        case .exit(64):
            return unreachable(
                "the blkferry there is too old, or is another program: "
                    + (lastLine ?? "it does not know --stdio"),
                Self.sameVersion)
        case .exit(let status):
            return unreachable(
                lastLine ?? "the command there ended with status \(status) before it spoke")
        case .signal(let number):
            return unreachable("ssh was ended by signal \(number)")
        case .none:
            return unreachable("ssh does not come to an end, and blkferry does not speak there")
        }
    }

    private static let sameVersion = "Install the same version on both sides."

    private var connectionError: HTTPError {
        func has(_ text: String) -> Bool { lines.contains { $0.contains(text) } }
        if has("REMOTE HOST IDENTIFICATION HAS CHANGED") {
            return unauthorized(
                "the host's key is not the one that ssh knows",
                "If it was changed on purpose, forget the old one: ssh-keygen -R \(command.host)")
        }
        if has("Host key verification failed") {
            return unauthorized(
                "ssh does not know the host's key",
                "Connect by hand once, and compare its fingerprint: \(command.byHand)")
        }
        let last = lastLine ?? "it, or what it started there, ended without a word"
        let reason = last.hasPrefix("ssh") ? last : "ssh: \(last)"
        let isRefused = [
            "Permission denied", "Too many authentication failures", "No supported authentication",
        ].contains(where: has)
        guard isRefused else { return unreachable(reason) }
        return unauthorized(reason, "Try it by hand first: \(command.byHand)")
    }

    /// The last one that tells something.
    private var lastLine: String? {
        let line = lines.last { line in
            // Indented lines belong to the one before; ssh's own chatter with -v.
            !line.isEmpty && !line.hasPrefix(" ") && !line.hasPrefix("debug")
                && !line.hasPrefix("Connection closed by UNKNOWN")
        }
        return line.map { $0.hasSuffix(".") ? String($0.dropLast()) : $0 }
    }

    private func unreachable(_ reason: String, _ advice: String? = nil) -> HTTPError {
        HTTPError(.unreachable, reason, advice: advice)
    }

    private func unauthorized(_ reason: String, _ advice: String) -> HTTPError {
        HTTPError(.untrusted, reason, advice: advice)
    }
}
