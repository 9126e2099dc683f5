// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockServer
internal import Digests
internal import Glibc
internal import LinuxIO
internal import WireProtocol

/// `blkferry serve --stdio`, which `ssh://` starts on the other host.
extension Serve {
    /// The signal that the server sends to its own process when the last connection has closed.
    static let streamsEnd = SIGUSR1

    func validateStreams() throws(WireError) {
        guard stdio else {
            if group != nil { throw WireError("--group goes with --stdio") }
            if !only.isEmpty { throw WireError("--only goes with --stdio") }
            return
        }
        if !only.isEmpty, !selectors.isEmpty || exportsFile != nil || exportAll {
            throw WireError("--only does not go with --export, --exports-file or --export-all")
        }
        let others = [
            ("--listen", listen != nil), ("--token-file", tokenFile != nil),
            ("--one-time-token", oneTimeToken), ("--insecure", insecure), ("--tls-…", tls.isOn),
        ]
        for (name, isGiven) in others where isGiven {
            throw WireError("\(name) does not go with --stdio: no other client can connect")
        }
        if user != nil {
            throw WireError(
                "--user does not go with --stdio: ssh starts it as the user who logs in")
        }
        if let group, !StreamListener.isName(group) {
            throw WireError("group \(group): must be 1 to 64 letters and digits")
        }
    }

    /// Prepares `--stdio`; `false` if another process of the group is the server and this one has
    /// nothing left to do.
    ///
    /// - Throws: also if standard input or output is a terminal.
    func prepareStreams(_ options: inout BlockServer.Options) throws(CommandFailure) -> Bool {
        for (descriptor, name) in [(STDIN_FILENO, "input"), (STDOUT_FILENO, "output")] {
            guard isatty(descriptor) == 0 else {
                throw CommandFailure(
                    .usage, "standard \(name) is a terminal, and --stdio speaks HTTP over it",
                    advice: "An ssh:// URL on another machine starts it.")
            }
        }
        options.createsImages = true
        // A closed pipe shows the end of a client, so no timeout is needed.
        options.idleTime = 86_400
        options.whenStreamsEnd = { kill(getpid(), Self.streamsEnd) }
        guard let group = try streamGroup() else { return true }
        do throws(IOError) { options.streams = try StreamListener.join(group) } catch {
            throw CommandFailure(error)
        }
        return options.streams != nil
    }

    /// Returns the name by which the processes of one run find each other.
    ///
    /// With `--only` the name comes from the command that the client requested from sshd. Nothing
    /// else of that command counts. The exports are then a part of the name, so that processes of
    /// another key, which offer other exports, form another group whatever name their client sends.
    private func streamGroup() throws(CommandFailure) -> String? {
        guard !only.isEmpty else { return group }
        guard let name = group ?? Self.group(inCommand: getenv("SSH_ORIGINAL_COMMAND")) else {
            return nil
        }
        do throws(IOError) {
            return hexadecimal(try sha256(of: Array(([name] + only).joined(separator: "\n").utf8)))
        } catch {
            throw CommandFailure(.deviceError, "group: \(error.reason)")
        }
    }

    /// Returns the word after `--group` in a command; `nil` if it is missing or not a valid name.
    static func group(inCommand command: UnsafePointer<CChar>?) -> String? {
        guard let command, let text = String(validatingCString: command) else { return nil }
        let words = text.split { $0 == " " || $0 == "\t" }
        guard let index = words.firstIndex(of: "--group"), index + 1 < words.count else {
            return nil
        }
        let name = String(words[index + 1])
        return StreamListener.isName(name) ? name : nil
    }
}
