// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
internal import LinuxIO

/// The cipher order that blkferry gives to ssh.
///
/// OpenSSH prefers ChaCha20, which needs no special instructions. On processors with AES
/// instructions, AES-GCM is several times as fast. blkferry changes only the order, so ciphers that
/// the user's configuration excludes stay excluded.
enum SSHCiphers {
    private static let fast = ["aes128-gcm@openssh.com", "aes256-gcm@openssh.com"]
    /// Limit of the output of `ssh -G` in bytes.
    private static let limit = 256 << 10

    /// Returns the option `-oCiphers=LIST`; `nil` if the order stays.
    static func option(for command: SSHCommand, unless isCancelled: () -> Bool) -> String? {
        guard hasInstructions, let words = command.configurationQuery,
            let process = try? SSHProcess(words, note: { _ in })
        else { return nil }
        defer {
            process.kill()
            close(process.socket)
        }
        let text = read(process.socket, unless: isCancelled)
        process.waitForEnd(within: .seconds(1), unless: isCancelled)
        guard case .exit(0) = process.termination else { return nil }
        return reordered(in: text).map { "-oCiphers=\($0)" }
    }

    /// Reorders the list in the output of `ssh -G`; `nil` if it is in that order already.
    static func reordered(in configuration: String) -> String? {
        let line = configuration.split(separator: "\n").first { $0.hasPrefix("ciphers ") }
        guard let line else { return nil }
        let ciphers = line.dropFirst("ciphers ".count).split(separator: ",").map(String.init)
        let preferred = fast.filter(ciphers.contains) + ciphers.filter { !fast.contains($0) }
        return preferred == ciphers ? nil : preferred.joined(separator: ",")
    }

    /// Whether /proc/cpuinfo has the flag `aes` (x86) or the feature `aes` (arm64).
    private static var hasInstructions: Bool {
        let lines = readSmallFile("/proc/cpuinfo")?.split(separator: "\n") ?? []
        let line = lines.first { $0.hasPrefix("flags") || $0.hasPrefix("Features") }
        return line?.split(separator: " ").contains("aes") ?? false
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
