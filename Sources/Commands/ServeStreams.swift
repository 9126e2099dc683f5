// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockServer
internal import Glibc
internal import LinuxIO
internal import WireProtocol

/// `blkferry serve --stdio`: what `ssh://` starts on the other host.
extension Serve {
    /// Tells that the last connection has closed.
    static let streamsEnd = SIGUSR1

    /// Checks the options that go with `--stdio`, and those that do not.
    ///
    /// - Throws: wrong usage.
    func validateStreams() throws(WireError) {
        guard stdio else {
            if group != nil { throw WireError("--group goes with --stdio") }
            return
        }
        let others = [
            ("--listen", listen != nil), ("--token-file", tokenFile != nil),
            ("--one-time-token", oneTimeToken), ("--insecure", insecure), ("--tls-…", tls.isOn),
        ]
        for (name, isGiven) in others where isGiven {
            throw WireError("\(name) does not go with --stdio, which nobody else can connect to")
        }
        if let group, !StreamListener.isName(group) {
            throw WireError("group \(group): must be 1 to 64 letters and digits")
        }
    }

    /// Finds out whether this process is the server of its group.
    ///
    /// - Parameter options: set accordingly.
    /// - Returns: `false` when another one is, and all is done.
    /// - Throws: where there is a terminal; what the system says.
    func prepareStreams(_ options: inout BlockServer.Options) throws(CommandFailure) -> Bool {
        for (descriptor, name) in [(STDIN_FILENO, "input"), (STDOUT_FILENO, "output")] {
            guard isatty(descriptor) == 0 else {
                throw CommandFailure(
                    .usage, "standard \(name) is a terminal, and --stdio speaks HTTP over it",
                    advice: "An ssh:// URL on another machine starts it.")
            }
        }
        options.createsImages = true
        // The end of a pipe says more than silence.
        options.idleTime = 86_400
        options.whenStreamsEnd = { kill(getpid(), Self.streamsEnd) }
        guard let group else { return true }
        do throws(IOError) { options.streams = try StreamListener.join(group) } catch {
            throw CommandFailure(error)
        }
        return options.streams != nil
    }
}
