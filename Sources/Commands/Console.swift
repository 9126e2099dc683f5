// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import DeviceProbe
internal import Glibc
internal import LinuxIO
internal import SystemPackage

/// The only printer: results to standard output, all else to standard error.
struct Console: Sendable {
    var isVerbose = false
    var isQuiet = false

    /// Results: what a script reads.
    ///
    /// - Returns: whether it could be written; if not, that has been said.
    @discardableResult
    func result(_ text: String) -> Bool {
        if write(text + "\n", to: STDOUT_FILENO) { return true }
        let reason = currentErrno()
        if reason != .brokenPipe { error("standard output: write: \(reason)") }
        return false
    }

    /// An error: one line, and one that says what to do.
    func error(_ message: String, advice: String? = nil) {
        write(
            "blkferry: \(printable(message))\n" + (advice.map { "  \(printable($0))\n" } ?? ""),
            to: STDERR_FILENO)
    }

    /// Something that the user should know, though the work went on.
    func warning(_ message: String) {
        write("blkferry: warning: \(printable(message))\n", to: STDERR_FILENO)
    }

    /// What is only told with `-v`.
    func note(_ message: String) {
        if isVerbose { write("blkferry: \(message)\n", to: STDERR_FILENO) }
    }

    /// Text as it is, for a progress line.
    func status(_ text: String) { write(text, to: STDERR_FILENO) }

    /// Whether a person watches standard error.
    var isTerminal: Bool { isatty(STDERR_FILENO) == 1 }

    @discardableResult
    private func write(_ text: String, to descriptor: Int32) -> Bool {
        var text = text
        return text.withUTF8 { bytes in
            var rest = UnsafeRawBufferPointer(bytes)
            while !rest.isEmpty {
                let count = Glibc.write(descriptor, rest.baseAddress, rest.count)
                // A reader that went away is no reason to leave a target unflushed.
                if count < 0 && errno != EINTR { return false }
                rest = UnsafeRawBufferPointer(rebasing: rest[max(0, count)...])
            }
            return true
        }
    }
}
