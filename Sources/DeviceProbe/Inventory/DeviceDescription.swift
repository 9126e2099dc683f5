// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
internal import LinuxIO
internal import SystemPackage

/// A device or image as a server offers it.
package struct DeviceDescription: Sendable {
    /// For an image only size, content and uses are known.
    package var entry: InventoryEntry
    package var identity: DeviceIdentity
    package var isImage: Bool
    package var hardwareName: String?
    /// Uses in words without paths: `mounted`, `in use as swap`.
    package var uses: [String]

    /// All selectors of the device except its path: `UUID=…` and others.
    package var tags: [String] {
        var tags: [String] = []
        func add(_ name: String, _ value: String?) {
            if let value, !value.isEmpty { tags.append("\(name)=\(value)") }
        }
        add("LVUUID", entry.lvUUID)
        add("PARTUUID", entry.partUUID)
        add("PARTLABEL", entry.partLabel)
        if let hardwareName { tags.append(hardwareName) }
        for signature in entry.content?.found ?? [] where signature.usage != .partitionTable {
            add("UUID", signature.uuid)
            add("LABEL", signature.label)
        }
        return tags
    }

    package func hasTag(_ text: String) -> Bool {
        if hardwareName?.isSame(as: text) == true { return true }
        guard case .tag(let tag, let value) = Selector(text) else { return false }
        return entry.matches(tag, value)
    }

    /// Whether the device did not answer and may have a selector's tag.
    package func mayHaveTag(_ text: String) -> Bool {
        guard case .tag(let tag, _) = Selector(text) else { return false }
        return entry.mayMatch(tag)
    }

    /// A tag that does not depend on content, such as `LVUUID=…`; `nil` if there is none.
    package var stableTag: String? {
        if let uuid = entry.lvUUID { return "LVUUID=\(uuid)" }
        if let uuid = entry.partUUID { return "PARTUUID=\(uuid)" }
        return hardwareName
    }
}

extension DeviceDescription {
    package init(unreadableImage path: String, reason: String) {
        identity = .newImage(fileSystem: 0, directory: path)
        isImage = true
        uses = []
        entry = InventoryEntry(
            path: path, number: 0, size: 0, logicalSector: 512, isReadOnly: false, inUseBy: [],
            hasNode: true)
        entry.unreadable = reason
    }
}

extension DeviceDescription {
    init(_ entry: InventoryEntry, _ host: HostState) {
        self.entry = entry
        identity = .device(entry.number)
        isImage = false
        hardwareName = host[entry.number].flatMap { $0.hardwareName(in: host.view) }
        uses = host.uses(of: entry.number).map(\.kind)
    }

    init(
        image path: String, as name: String, _ status: FileStatus, _ host: HostState,
        _ contents: ImageContents
    ) {
        let file = FileIdentity(status)
        identity = .image(file, path: path)
        isImage = true
        entry = InventoryEntry(
            path: name, number: 0, size: status.size, logicalSector: 512, isReadOnly: false,
            inUseBy: [], hasNode: true)
        uses = host.uses(of: file).map(\.kind)
        if let content = contents.content(of: status) {
            entry.set(content)
            return
        }
        let now = ImageContents.now
        do throws(Errno) {
            let prober = try Prober(
                path: path, identity: identity, size: status.size, logicalSector: nil)
            let content = prober.content()
            contents.keep(content, of: status, now: now)
            entry.set(content)
        } catch {
            entry.unreadable = error.description
        }
    }
}

extension KernelDevice {
    /// `WWN=…` or `SERIAL=…` of a whole disk.
    ///
    /// Source: Documentation/ABI/stable/sysfs-block and the drivers: SCSI has `device/wwid`, NVMe
    /// `wwid`, virtio `serial`, others `device/serial`.
    func hardwareName(in view: SystemView) -> String? {
        guard disk == nil else { return nil }
        for (file, tag) in [
            ("device/wwid", "WWN"), ("wwid", "WWN"), ("serial", "SERIAL"),
            ("device/serial", "SERIAL"),
        ] {
            let words = (attribute(file, in: view) ?? "").split(whereSeparator: \.isWhitespace)
            if !words.isEmpty { return "\(tag)=\(words.joined(separator: "-"))" }
        }
        return nil
    }
}
