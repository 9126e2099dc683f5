// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockServer
internal import DeviceProbe
internal import LinuxIO
internal import Logging
internal import LogicalVolumes
internal import WireProtocol

/// Warnings about exports that may not be what the user meant.
extension Serve {
    func warn(of exports: [ExportSelector], _ logger: Logger) {
        warn(ofMissing: exports, logger)
        for export in exports {
            guard case .path(let path) = export.selector, export.group == nil,
                let link = BlockServer.untrustedLink(in: path)
            else { continue }
            logger.warning(
                "not exported: another user may change a symbolic link in its path",
                metadata: ["export": "\(path)", "link": "\(link)"])
        }
    }

    /// Warns about missing groups and volumes; a name without a leading slash may be a mistyped
    /// path, or a volume that does not exist yet.
    private func warn(ofMissing exports: [ExportSelector], _ logger: Logger) {
        guard exports.contains(where: { $0.group != nil || $0.isVolumeName }) else { return }
        let groups = try? LVM(in: SystemView())?.groupNames()
        for export in exports {
            let file = try? FileStatus(path: export.text)
            if let group = export.group {
                // Without LVM's answer, its directory shows a group with active volumes.
                if groups?.contains(group) ?? (file?.kind == .directory) { continue }
                logger.warning(
                    "there is no such volume group now; a device is exported by its path",
                    metadata: ["export": "\(group)"])
            } else if export.isVolumeName, !export.canCreate, file == nil {
                logger.warning(
                    "there is no such logical volume now; an image is exported by its whole path",
                    metadata: ["export": "\(export.text)"])
            }
        }
    }

    /// Prints the command for the other host, if the server has made a token or a key for it;
    /// `false` if the token cannot be printed.
    func printCommand(
        _ token: String?, _ urls: [String], _ identity: ServerIdentity?, _ console: Console
    ) -> Bool {
        guard token != nil || tls.isSelfSigned else { return true }
        let variable = token.map { "BLKFERRY_TOKEN=\($0) " } ?? ""
        var options = ""
        if tls.isSelfSigned, let identity {
            options = "--pinned-pubkey sha256//\(base64(identity.keyDigest)) "
        }
        let command = "\(variable)blkferry list \(options)\(urls.first ?? "URL")"
        var text = "On the other host:\n    \(command)"
        if urls.count > 1 { text += "\nor with \(urls.dropFirst().joined(separator: ", "))" }
        // A key can also be learned from the server.
        return console.result(text) || token == nil
    }
}
