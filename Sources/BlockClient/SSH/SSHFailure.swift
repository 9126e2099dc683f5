// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
package import LinuxIO
package import WireProtocol

/// The reason why ssh did not reach a server's greeting, as a message for the user.
package struct SSHFailure {
    package enum Termination: Hashable, Sendable {
        case exit(Int)
        case signal(Int)
        case none
    }
    package var termination: Termination
    /// What ssh and the remote command wrote to standard error.
    package var lines: [String]
    /// What arrived in place of a greeting.
    package var finding: StdioGreeting.Finding
    package var command: SSHCommand

    package init(
        _ termination: Termination, lines: [String], finding: StdioGreeting.Finding,
        _ command: SSHCommand
    ) {
        self.termination = termination
        self.lines = lines
        self.finding = finding
        self.command = command
    }

    /// ssh's exit status for its own errors (ssh(1)).
    private static let ownError = 255

    package var error: IOError {
        if case .other(let version) = finding {
            return unreachable(
                "the blkferry there, version \(version), speaks another protocol", Self.sameVersion)
        }
        if termination == .exit(Self.ownError) { return connectionError }
        if case .chatter(let text) = finding, !text.isEmpty {
            return unreachable(
                "something else than blkferry speaks there: \"\(text)\"",
                "A shell's start files must print nothing where there is no terminal.")
        }
        let name = command.remoteCommand
        switch termination {
        case .exit(127):
            return unreachable(
                "\(name) is not found there",
                "Install it there, or give its path with --remote-command.")
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
            return unreachable("ssh does not end, and no blkferry answers there")
        }
    }

    private static let sameVersion = "Install the same version on both sides."

    private var connectionError: IOError {
        func has(_ text: String) -> Bool { lines.contains { $0.contains(text) } }
        if has("REMOTE HOST IDENTIFICATION HAS CHANGED") {
            return unauthorized(
                "the host's key is not the one that ssh knows",
                "If it was changed on purpose, remove the old one: ssh-keygen -R \(command.host)")
        }
        if has("Host key verification failed") {
            return unauthorized(
                "ssh does not know the host's key",
                "Connect by hand once, and compare its fingerprint: \(command.byHand)")
        }
        let last = lastLine ?? "ssh, or the command there, ended without a message"
        let reason = last.hasPrefix("ssh") ? last : "ssh: \(last)"
        let isRefused = [
            "Permission denied", "Too many authentication failures", "No supported authentication",
        ].contains(where: has)
        guard isRefused else { return unreachable(reason) }
        return unauthorized(reason, "Try it by hand first: \(command.byHand)")
    }

    private var lastLine: String? {
        let line = lines.last { line in
            // Indented lines continue the previous line. `debug` lines are the output of ssh -v.
            !line.isEmpty && !line.hasPrefix(" ") && !line.hasPrefix("debug")
                && !line.hasPrefix("Connection closed by UNKNOWN")
        }
        return line.map { $0.hasSuffix(".") ? String($0.dropLast()) : $0 }
    }

    private func unreachable(_ reason: String, _ advice: String? = nil) -> IOError {
        .transport(reason, advice: advice)
    }

    private func unauthorized(_ reason: String, _ advice: String) -> IOError {
        .transport(reason, kind: .unauthorized, advice: advice)
    }
}
