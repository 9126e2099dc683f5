// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
internal import LinuxIO

/// Which ciphers ssh is told to prefer.
///
/// OpenSSH begins its list with ChaCha20, which needs no instructions of its own; where processors
/// have them for AES, its GCM is several times as fast. Only the order is changed: what the user's
/// configuration does not permit stays out.
enum SSHCiphers {
    private static let fast = ["aes128-gcm@openssh.com", "aes256-gcm@openssh.com"]
    /// Bytes of what `ssh -G` prints that are read.
    private static let limit = 256 << 10

    /// The option for ssh; `nil` where it is to do as it does.
    ///
    /// - Parameters:
    ///   - command: what makes the connection.
    ///   - isOver: whether it is still wanted.
    /// - Returns: `-oCiphers=` and a list.
    static func option(for command: SSHCommand, unless isOver: () -> Bool) -> String? {
        guard hasInstructions, let words = command.configurationQuery,
            let process = try? SSHProcess(words, note: { _ in })
        else { return nil }
        defer {
            process.kill()
            close(process.socket)
        }
        let text = read(process.socket, unless: isOver)
        process.waitForEnd(within: .seconds(1), unless: isOver)
        guard case .exit(0) = process.ending else { return nil }
        return reordered(in: text).map { "-oCiphers=\($0)" }
    }

    /// The list in what `ssh -G` prints, with the fast ones first; `nil` where that changes nothing.
    static func reordered(in configuration: String) -> String? {
        let line = configuration.split(separator: "\n").first { $0.hasPrefix("ciphers ") }
        guard let line else { return nil }
        let ciphers = line.dropFirst("ciphers ".count).split(separator: ",").map(String.init)
        let preferred = fast.filter(ciphers.contains) + ciphers.filter { !fast.contains($0) }
        return preferred == ciphers ? nil : preferred.joined(separator: ",")
    }

    /// The flag `aes` of x86, or the feature `aes` of arm64.
    private static var hasInstructions: Bool {
        let lines = readSmallFile("/proc/cpuinfo")?.split(separator: "\n") ?? []
        let line = lines.first { $0.hasPrefix("flags") || $0.hasPrefix("Features") }
        return line?.split(separator: " ").contains("aes") ?? false
    }

    private static func read(_ socket: Int32, unless isOver: () -> Bool) -> String {
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 16 << 10)
        let deadline = ContinuousClock.now + .seconds(5)
        while bytes.count < limit, ContinuousClock.now < deadline, !isOver() {
            var polled = pollfd(fd: socket, events: Int16(POLLIN), revents: 0)
            guard poll(&polled, 1, 100) > 0 else { continue }
            let count = recv(socket, &chunk, chunk.count, Int32(MSG_DONTWAIT))
            guard count > 0 else { break }
            bytes += chunk[..<count]
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}
