// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
internal import LinuxIO

/// The options that blkferry adds to the user's configuration of ssh, as far as `ssh -G` prints it.
enum SSHConfiguration {
    /// Limit of the output of `ssh -G` in bytes.
    private static let limit = 256 << 10

    /// Returns the options for a command; none if its configuration is unknown.
    static func options(for command: SSHCommand, unless isCancelled: () -> Bool) -> [String] {
        guard let text = text(for: command, unless: isCancelled) else { return [] }
        return [SSHCiphers.option(in: text)].compactMap { $0 } + keepalive(in: text)
    }

    /// Returns options for ssh's own keepalive; none if the configuration has set it.
    ///
    /// It keeps NATs from forgetting the connection while the server flushes. ssh ends when the
    /// host has sent nothing for two and a half minutes. In that time a line of 640 bytes a second
    /// carries the 96 KiB after which the host acknowledges an upload.
    static func keepalive(in configuration: String) -> [String] {
        let isUnset = configuration.split(separator: "\n").contains("serveraliveinterval 0")
        return isUnset ? ["-oServerAliveInterval=30", "-oServerAliveCountMax=4"] : []
    }

    private static func text(for command: SSHCommand, unless isCancelled: () -> Bool) -> String? {
        guard let words = command.configurationQuery,
            let process = try? SSHProcess(words, note: { _ in })
        else { return nil }
        defer {
            process.kill()
            close(process.socket)
        }
        let text = read(process.socket, unless: isCancelled)
        process.waitForEnd(within: .seconds(1), unless: isCancelled)
        guard case .exit(0) = process.termination else { return nil }
        return text
    }

    private static func read(_ socket: Int32, unless isCancelled: () -> Bool) -> String {
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 16 << 10)
        let deadline = ContinuousClock.now + .seconds(5)
        while bytes.count < limit, ContinuousClock.now < deadline, !isCancelled() {
            var polled = pollfd(fd: socket, events: Int16(POLLIN), revents: 0)
            guard poll(&polled, 1, 100) > 0 else { continue }
            let count = recv(socket, &chunk, chunk.count, Int32(MSG_DONTWAIT))
            guard count > 0 else { break }
            bytes += chunk[..<count]
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}
