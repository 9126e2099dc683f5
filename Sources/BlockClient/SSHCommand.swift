// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Digests
package import WireProtocol

/// How the user wants a server to be started by ssh.
package struct SSHSettings: Sendable {
    /// The local program and its first arguments.
    package var command = ["ssh"]
    /// What the shell over there is to start; it is given further arguments.
    package var remoteCommand = "blkferry"
    /// Whether the device that the URL names is written to.
    package var isTarget = false
    /// Whether a logical volume may be made: that one, where it is missing, or a snapshot of it.
    package var makesVolumes = false

    package init() {}
}

/// The command that makes a connection: each of one run is the same.
package struct SSHCommand: Sendable {
    /// The program and its arguments.
    package let words: [String]
    /// What has ssh print its configuration for the host; `nil` where that may be another program.
    let configurationQuery: [String]?
    /// What the user would type to see what is wrong.
    package let byHand: String
    /// For messages.
    package let host: String
    let remoteCommand: String
    /// How many of the words are the user's own, before which no option can stand.
    private let programCount: Int

    /// The words with one more option.
    func words(with option: String?) -> [String] {
        guard let option else { return words }
        return words[..<programCount] + [option] + words[programCount...]
    }

    /// Makes the command.
    ///
    /// - Parameters:
    ///   - location: of ssh.
    ///   - settings: what the user wants.
    ///   - group: the name under which its processes over there find their server.
    package init(_ location: RemoteLocation, _ settings: SSHSettings, group: String) {
        let mayCreate =
            settings.makesVolumes && location.selector.map(ExportSelector.canBeVolume) ?? false
        let access = settings.isTarget ? mayCreate ? "rw,create" : "rw" : "ro"
        let exports =
            location.selector.map { "--export \(shellQuoted("\($0):\(access)"))" }
            ?? "--export-all"
        // As sftp(1) has it: nothing of the user's configuration that is for a terminal.
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

    /// A name that nobody else has: 128 random bits.
    ///
    /// - Throws: where there are none to be had.
    static func newGroup() throws(DigestError) -> String {
        try DigestKey().withUnsafeBytes { hexadecimal($0.prefix(16)) }
    }
}
