// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import DeviceProbe
internal import LinuxIO
internal import WireProtocol

/// What a client may do, by the token it has shown.
struct Grant: Hashable, Sendable {
    /// Whom the log names; `nil` where nobody needs a token.
    var name: String?
    /// What it may do at most, whatever the export allows.
    var access: ExportAccess
    /// The exports that there are for it; `nil` for all.
    var selectors: [ExportSelector]?

    /// Of a server that asks for no token.
    static let everything = Grant(name: nil, access: .readWrite, selectors: nil)

    init(name: String?, access: ExportAccess, selectors: [ExportSelector]?) {
        self.name = name
        self.access = access
        self.selectors = selectors
    }

    init(_ entry: TokenEntry) {
        self.init(name: entry.name, access: entry.access, selectors: entry.selectors)
    }

    /// What is left of an export for this client; `nil` where there is none for it.
    func limit(_ found: ExportTable.Found) -> ExportTable.Found? {
        guard sees(found) else { return nil }
        var found = found
        if access == .readOnly { found.access = .readOnly }
        return found
    }

    private func sees(_ found: ExportTable.Found) -> Bool {
        selectors?.contains { selector in
            switch selector.selector {
            case .tag:
                found.description?.hasTag(selector.text) == true
            case .path where selector.isDirectory || selector.group != nil:
                // By bytes, as the kernel compares. No export's name has `..` in it.
                found.name.utf8.starts(with: selector.text.utf8)
            case .path(let path):
                found.name.utf8.elementsEqual(path.utf8) || Self.leads(path, to: found.identity)
            }
        } ?? true
    }

    /// Whether a path leads to a block device, whatever it is called there.
    private static func leads(_ path: String, to identity: DeviceIdentity?) -> Bool {
        guard let identity, let status = try? FileStatus(path: path),
            status.kind == .blockDevice
        else { return false }
        return identity == .device(status.device)
    }

    /// What is left of a directory of images: there is one where all of it may be seen.
    func limit(_ directory: DirectoryRecord) -> DirectoryRecord? {
        let isSeen =
            selectors?.contains { selector in
                selector.isDirectory && directory.path.utf8.starts(with: selector.text.utf8)
            } ?? true
        guard isSeen else { return nil }
        var directory = directory
        if access == .readOnly { directory.access = .readOnly }
        return directory
    }
}
