// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Digests
internal import LinuxIO
package import WireProtocol

/// How ssh starts a server, as the user's options say.
package struct SSHSettings: Sendable {
    package var command = ["ssh"]
    /// The program that the remote shell starts; blkferry appends arguments.
    package var remoteCommand = "blkferry"
    /// Whether the run writes to the device of the URL.
    package var isTarget = false
    /// Whether the server may create the logical volume of the URL, or a snapshot of it.
    package var makesVolumes = false

    package init() {}
}

/// The command that makes a connection; all connections of a run use the same one.
package struct SSHCommand: Sendable {
    package let words: [String]
    /// The command that makes ssh print its configuration for the host; `nil` if the program may
    /// not be ssh.
    let configurationQuery: [String]?
    /// The command that the user can type to see what is wrong.
    package let byHand: String
    package let host: String
    let remoteCommand: String
    /// Number of leading words that the user gave; options can only follow them.
    private let programCount: Int

    func words(with options: [String]) -> [String] {
        words[..<programCount] + options + words[programCount...]
    }

    /// Makes the command; the remote processes of one run find their common server by `group`.
    package init(_ location: RemoteLocation, _ settings: SSHSettings, group: String) {
        let mayCreate =
            settings.makesVolumes && location.selector.map(ExportSelector.canBeVolume) ?? false
        let access = settings.isTarget ? mayCreate ? "rw,create" : "rw" : "ro"
        let exports =
            location.selector.map { "--export \(shellQuoted("\($0):\(access)"))" }
            ?? "--export-all"
        // As in sftp(1), nothing in the user's configuration that is meant for a terminal takes
        // effect.
        var words =
            settings.command + [
                "-T", "-x", "-oPermitLocalCommand=no", "-oClearAllForwardings=yes",
                "-oRemoteCommand=none", "-oRequestTTY=no", "-oControlMaster=no",
            ]
        var place: [String] = []
        if let port = location.port { place += ["-p", "\(port)"] }
        if let user = location.user { place += ["-l", user] }
        words += place + ["--", location.host]
        words.append("\(settings.remoteCommand) serve --stdio --group \(group) \(exports)")
        self.words = words
        let isSSH = settings.command.first?.split(separator: "/").last == "ssh"
        configurationQuery =
            isSSH ? settings.command + ["-G"] + place + ["--", location.host] : nil
        programCount = settings.command.count
        byHand = (settings.command + place + [location.host]).joined(separator: " ")
        host = location.host
        remoteCommand = settings.remoteCommand
    }

    /// Draws a unique name of 128 random bits.
    static func newGroup() throws(IOError) -> String {
        try DigestKey().withUnsafeBytes { hexadecimal($0.prefix(16)) }
    }
}
