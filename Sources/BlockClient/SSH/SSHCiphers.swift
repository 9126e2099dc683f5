// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import LinuxIO

/// The cipher order that blkferry gives to ssh.
///
/// OpenSSH prefers ChaCha20, which needs no special instructions. On processors with AES
/// instructions, AES-GCM is several times as fast. blkferry changes only the order, so ciphers that
/// the user's configuration excludes stay excluded.
enum SSHCiphers {
    private static let fast = ["aes128-gcm@openssh.com", "aes256-gcm@openssh.com"]

    /// Returns the option `-oCiphers=LIST` for the output of `ssh -G`; `nil` if the order stays.
    static func option(in configuration: String) -> String? {
        guard hasInstructions else { return nil }
        return reordered(in: configuration).map { "-oCiphers=\($0)" }
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
}
