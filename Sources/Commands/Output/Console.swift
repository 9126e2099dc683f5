// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import DeviceProbe
internal import Glibc
internal import LinuxIO
internal import Logging
internal import SystemPackage

/// The only printer: results to standard output, all else to standard error.
struct Console: Sendable {
    var isVerbose = false
    var isQuiet = false
    /// Whether to wait for the reader of a full pipe; otherwise text is left out.
    var waitsForReader = true

    /// A pipe that is not full takes this much without waiting (`PIPE_BUF` of pipe(7)): bytes.
    private static let pipeRoom = 4096

    /// Prints a result; `false` if that failed, which is reported except for a closed pipe.
    @discardableResult
    func result(_ text: String) -> Bool {
        // The text may contain names of files, devices and exports.
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
        let safe = lines.map { printable(String($0)) }.joined(separator: "\n")
        if write(safe + "\n", to: STDOUT_FILENO) { return true }
        let reason = currentErrno()
        if reason != .brokenPipe { error("standard output: write: \(reason)") }
        return false
    }

    /// Prints an error on one line, and advice on a second one.
    func error(_ message: String, advice: String? = nil) {
        let advice = advice.map { ["  \(printable($0))"] } ?? []
        log(.error, ["blkferry: \(printable(message))"] + advice)
    }

    func warning(_ message: String) {
        log(.warning, ["blkferry: warning: \(printable(message))"])
    }

    /// Prints the reason of a delay, except with `-q`.
    func information(_ message: String) {
        if !isQuiet { log(.info, ["blkferry: \(printable(message))"]) }
    }

    /// Prints a message with `-v` only.
    func note(_ message: String) {
        if isVerbose { log(.debug, ["blkferry: \(printable(message))"]) }
    }

    /// Prints lines, in the journal with their priority.
    func log(_ level: Logger.Level, _ lines: [String]) {
        write(
            lines.map { Journal.prefix(of: level) + $0 + "\n" }.joined(), to: STDERR_FILENO)
    }

    /// Prints text unchanged, for a progress line.
    func status(_ text: String) { write(text, to: STDERR_FILENO) }

    var isTerminal: Bool { isatty(STDERR_FILENO) == 1 }

    @discardableResult
    private func write(_ text: String, to descriptor: Int32) -> Bool {
        var text = text
        return text.withUTF8 { bytes in
            var rest = UnsafeRawBufferPointer(bytes)
            while !rest.isEmpty {
                guard waitsForReader || isReady(descriptor) else { return false }
                let size = waitsForReader ? rest.count : min(rest.count, Self.pipeRoom)
                let count = Glibc.write(descriptor, rest.baseAddress, size)
                // A closed pipe must not keep a target from being flushed.
                if count < 0 && errno != EINTR { return false }
                rest = UnsafeRawBufferPointer(rebasing: rest[max(0, count)...])
            }
            return true
        }
    }

    private func isReady(_ descriptor: Int32) -> Bool {
        var polled = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
        return poll(&polled, 1, 0) > 0 && polled.revents & Int16(POLLOUT) != 0
    }
}
