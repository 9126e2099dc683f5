// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import ArgumentParser
internal import BlockClient
internal import WireProtocol

struct SSHOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "For ssh://: the ssh to start, with options, such as \"ssh -i key -F file\".",
            valueName: "command"))
    var sshCommand = "ssh"

    @Option(
        help: ArgumentHelp(
            "For ssh://: what is blkferry on the other host, such as \"sudo blkferry\".",
            valueName: "command"))
    var remoteCommand = "blkferry"

    func validate() throws {
        do throws(WireError) { _ = try shellWords(sshCommand) } catch {
            throw ValidationError("ssh command \(error.reason)")
        }
        guard remoteCommand.contains(where: { !$0.isWhitespace }), !remoteCommand.hasPrefix("-")
        else { throw ValidationError("remote command \(remoteCommand): it names no command") }
    }

    func settings(isTarget: Bool) -> SSHSettings {
        var settings = SSHSettings()
        // `validate` has reported an invalid command.
        settings.command = (try? shellWords(sshCommand)) ?? [sshCommand]
        settings.remoteCommand = remoteCommand
        settings.isTarget = isTarget
        return settings
    }
}
