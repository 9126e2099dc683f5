// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import TestSupport

/// An sshd on a port of 127.0.0.1 that lets one key in, and a configuration of ssh that has it.
final class SSHServer {
    let scratch: ScratchDirectory
    let port: Int
    /// What a client is called with besides its own options.
    let options: [String]
    private let process: RunningProgram

    /// Starts it and waits until it listens.
    ///
    /// - Parameter settings: lines of its configuration that come first, and so count.
    /// - Throws: when it does not come to listen.
    init(settings: String = "") throws {
        scratch = try ScratchDirectory()
        let directory = scratch.path
        for key in ["host", "user", "stranger"] {
            try must("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "\(directory)/\(key)")
        }
        if isRoot, !FileManager.default.fileExists(atPath: "/run/sshd") {
            // Another test may make it at this moment.
            try? FileManager.default.createDirectory(
                atPath: "/run/sshd", withIntermediateDirectories: true)
        }
        (process, port) = try Self.start(directory, settings)
        let hostKey = try String(contentsOfFile: "\(directory)/host.pub", encoding: .utf8)
            .split(separator: " ").prefix(2).joined(separator: " ")
        try "[127.0.0.1]:\(port) \(hostKey)\n".write(
            toFile: "\(directory)/known_hosts", atomically: false, encoding: .utf8)
        try Self.clientConfiguration(directory, key: "user", hosts: "known_hosts").write(
            toFile: "\(directory)/config", atomically: false, encoding: .utf8)
        options = ["--ssh-command", "ssh -F \(directory)/config", "--remote-command", program]
    }

    private static func start(
        _ directory: String, _ settings: String
    ) throws -> (RunningProgram, Int) {
        var errors = ""
        for _ in 1...5 {
            // Somebody else may take the port before sshd does.
            let port = try { try Loopback.port(of: Loopback.listen()) }()
            try """
            \(settings)
            Port \(port)
            ListenAddress 127.0.0.1
            HostKey \(directory)/host
            AuthorizedKeysFile \(directory)/user.pub
            PidFile none
            UsePAM no
            StrictModes no
            PermitRootLogin yes
            PasswordAuthentication no
            KbdInteractiveAuthentication no
            \(settings.contains("MaxStartups") ? "" : "MaxStartups 100")
            LogLevel VERBOSE

            """.write(toFile: "\(directory)/sshd_config", atomically: false, encoding: .utf8)
            // sshd closes what it inherits, by which Foundation tells that a process has ended: it
            // is the child of one that does not, and ends with it.
            let sshd = "setpriv --pdeathsig KILL /usr/sbin/sshd -D -e -f \(directory)/sshd_config"
            let process = try RunningProgram(["sh", "-c", "\(sshd) & wait $!"])
            let deadline = ContinuousClock.now + .seconds(30)
            while process.isRunning, ContinuousClock.now < deadline {
                errors = try process.errorsSoFar()
                if errors.contains("Server listening on") { return (process, port) }
                usleep(5_000)
            }
        }
        throw NotListening(errors: errors)
    }

    private static func clientConfiguration(
        _ directory: String, key: String, hosts: String
    ) -> String {
        """
        IdentityFile \(directory)/\(key)
        IdentitiesOnly yes
        IdentityAgent none
        UserKnownHostsFile \(directory)/\(hosts)
        GlobalKnownHostsFile /dev/null

        """
    }

    /// Another configuration for clients.
    ///
    /// - Parameters:
    ///   - key: `user` or `stranger`.
    ///   - hosts: the file of known hosts, in the scratch directory.
    /// - Returns: the command for `--ssh-command`.
    /// - Throws: when the file cannot be written.
    func command(key: String = "user", hosts: String = "known_hosts") throws -> String {
        let name = "config-\(key)-\(hosts)"
        try Self.clientConfiguration(scratch.path, key: key, hosts: hosts).write(
            toFile: scratch.file(name), atomically: false, encoding: .utf8)
        return "ssh -F \(scratch.file(name))"
    }

    /// The URL of a device: `selector` is a path or a tag.
    func url(_ selector: String = "/") -> String {
        let path = selector.hasPrefix("/") ? selector : "/\(selector)"
        return "ssh://\(NSUserName())@127.0.0.1:\(port)\(path)"
    }

    /// What sshd has logged so far.
    func log() throws -> String { try process.errorsSoFar() }

    /// How many sessions there were so far: each is an ssh process.
    func sessionCount() throws -> Int {
        try log().components(separatedBy: "Starting session: ").count - 1
    }

    /// Waits until sshd has no connection, not even one that it has not let in yet; `false` after a
    /// minute.
    func becomesIdle() throws -> Bool {
        let sshd = try must("pgrep", "-P", "\(process.processID)").filter(\.isNumber)
        return try becomesTrue { try run("pgrep", "-P", sshd).status == 1 }
    }

    /// Writes a program for `--remote-command`.
    func script(_ text: String) throws -> String {
        let path = scratch.file("script-\(UUID().uuidString)")
        try "#!/bin/sh\n\(text)\n".write(toFile: path, atomically: false, encoding: .utf8)
        try must("chmod", "700", path)
        return path
    }
}

/// A process of those that were started for an `ssh://` URL.
struct SSHPart {
    let process: Int32
    let command: String
    /// Whether it is a server, or one that has joined it, and not ssh or a shell.
    var isServer: Bool { command.hasPrefix(program) }
    var isSSH: Bool { command.hasPrefix("ssh ") }

    /// Whether sshd started it and it has handed its streams to a server, or is about to.
    ///
    /// The server has replaced its own standard input, and its children, which look like it until
    /// they end, are not children of sshd.
    var hasJoinedServer: Bool {
        func text(_ process: Int32, _ name: String) -> String {
            (try? String(contentsOfFile: "/proc/\(process)/\(name)", encoding: .utf8)) ?? ""
        }
        let line = text(process, "status").split(separator: "\n").first { $0.hasPrefix("PPid:") }
        guard isServer, let parent = line?.split(separator: "\t").last.flatMap({ Int32($0) }),
            let input = try? FileManager.default.destinationOfSymbolicLink(
                atPath: "/proc/\(process)/fd/0")
        else { return false }
        return text(parent, "comm").hasPrefix("sshd") && input != "/dev/null"
    }

    /// All that run with a text in their arguments.
    static func all(with text: String) -> [SSHPart] {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
        return names.compactMap(Int32.init).compactMap { process in
            guard let data = FileManager.default.contents(atPath: "/proc/\(process)/cmdline")
            else { return nil }
            let command = String(decoding: data, as: UTF8.self).replacing("\0", with: " ")
            guard command.contains("--stdio"), command.contains(text) else { return nil }
            return SSHPart(process: process, command: command)
        }
    }

    /// Waits until none is left.
    ///
    /// - Returns: those that are left after a minute.
    static func waitForNone(with text: String) -> [SSHPart] {
        let deadline = ContinuousClock.now + .seconds(60)
        var left = all(with: text)
        while !left.isEmpty, ContinuousClock.now < deadline {
            usleep(50_000)
            left = all(with: text)
        }
        return left
    }
}
