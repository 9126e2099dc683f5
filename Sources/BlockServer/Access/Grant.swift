// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import DeviceProbe
internal import LinuxIO
internal import WireProtocol

/// The rights of a client, given by its token or certificate.
struct Grant: Hashable, Sendable {
    /// The client's name in the log; `nil` if no token is needed.
    var name: String?
    /// The most that the client may do, whatever the export allows.
    var access: ExportAccess
    /// The exports that the client sees; `nil` for all.
    var selectors: [ExportSelector]?
    /// Bytes that a directory may hold after the client has created or extended an image in it;
    /// `nil` for no limit.
    var maximumSize: Int?
    /// Whether the client may write and take snapshots, but neither remove nor shrink anything.
    var isAppendOnly = false

    static let everything = Grant(name: nil, access: .readWrite, selectors: nil)

    init(name: String?, access: ExportAccess, selectors: [ExportSelector]?) {
        self.name = name
        self.access = access
        self.selectors = selectors
    }

    init(_ entry: TokenEntry) {
        self.init(name: entry.name, access: entry.access, selectors: entry.selectors)
        maximumSize = entry.maximumSize
        isAppendOnly = entry.isAppendOnly
    }

    /// Limits an export to what this client may do; `nil` if the client does not see it.
    func limit(_ found: ExportTable.Found) -> ExportTable.Found? {
        guard sees(found) else { return nil }
        var found = found
        if access == .readOnly { found.access = .readOnly }
        return found
    }

    private func sees(_ found: ExportTable.Found) -> Bool {
        selectors?.contains { selector in
            if case .tag = selector.selector {
                return found.description?.hasTag(selector.text) == true
            }
            return Self.mayMean(selector, found.name, number: found.number)
        } ?? true
    }

    /// Whether the client may see the file at a path, decided without opening it.
    ///
    /// - Parameter number: `st_rdev` of a block device; `nil` for an image.
    func maySee(_ path: String, number: UInt64? = nil) -> Bool {
        selectors?.contains { selector in
            if case .tag = selector.selector { return true }
            return Self.mayMean(selector, path, number: number)
        } ?? true
    }

    /// Whether an export may contain anything that the client sees, by paths and device numbers
    /// only.
    func maySee(_ export: ExportSelector) -> Bool {
        guard let selectors else { return true }
        guard case .path = export.selector else { return maySeeDevices }
        guard export.isDirectory || export.group != nil else {
            let path = export.devicePath
            let status = try? FileStatus(path: path)
            return maySee(path, number: status?.kind == .blockDevice ? status?.device : nil)
        }
        return selectors.contains { selector in
            if case .tag = selector.selector { return true }
            return export.text.utf8.starts(with: selector.text.utf8)
                || selector.text.utf8.starts(with: export.text.utf8)
                // Volumes have other names, for example in /dev/mapper.
                || export.group != nil && TrustedPath.deviceNumber(at: selector.text) != nil
        }
    }

    /// Whether the client may see any block device that is exported without its path.
    var maySeeDevices: Bool {
        selectors?.contains { selector in
            switch selector.selector {
            case .tag: true
            case .path where selector.isDirectory: selector.text.hasPrefix("/dev/")
            case .path(let path): selector.group != nil || TrustedPath.deviceNumber(at: path) != nil
            }
        } ?? true
    }

    /// Whether the content of devices decides which of them the client sees.
    var hasTags: Bool {
        selectors?.contains { if case .tag = $0.selector { true } else { false } } ?? false
    }

    private static func mayMean(
        _ selector: ExportSelector, _ path: String, number: UInt64?
    ) -> Bool {
        if selector.isDirectory || selector.group != nil {
            // Compares bytes, as the kernel does. No export's name contains `..`.
            return path.utf8.starts(with: selector.text.utf8)
        }
        if path.utf8.elementsEqual(selector.text.utf8) { return true }
        // The same block device under another name.
        return number != nil && TrustedPath.deviceNumber(at: selector.text) == number
    }

    /// Limits a directory of images to what this client may do; `nil` if it does not see all of it.
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
