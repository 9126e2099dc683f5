// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
internal import LinuxIO
internal import SystemPackage

/// A device or image as a server offers it.
package struct DeviceDescription: Sendable {
    /// What is known of it; of an image: size, content and uses.
    package var entry: InventoryEntry
    package var identity: DeviceIdentity
    package var isImage: Bool
    /// What the maker gave to the whole disk: its WWN, else its serial number.
    package var hardwareName: String?
    /// Uses in words without paths: `mounted`, `in use as swap`.
    package var uses: [String]

    /// What selects it, besides its path: `UUID=…` and the like.
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

    /// Whether a selector's tag, or what the maker named the disk, means this device.
    package func hasTag(_ text: String) -> Bool {
        if text == hardwareName { return true }
        guard case .tag(let tag, let value) = Selector(text) else { return false }
        return entry.matches(tag, value)
    }

    /// Of a logical volume: its group and its name.
    package var volume: (group: String, name: String)? {
        entry.volumeName.map { ($0.group, $0.volume) }
    }

    /// What of it stays when its content changes, such as `LVUUID=…`; `nil` where all of it is
    /// content.
    package var stableTag: String? {
        if let uuid = entry.lvUUID { return "LVUUID=\(uuid)" }
        if let uuid = entry.partUUID { return "PARTUUID=\(uuid)" }
        return hardwareName
    }
}

/// Describes every block device of this machine.
///
/// - Throws: when sysfs or procfs is not there.
package func describeAll(
    view: SystemView = SystemView()
) throws(ProbeError) -> [DeviceDescription] {
    let host = HostState(view)
    if let error = host.blindness { throw .failed(error) }
    return inventory(host, probing: true).map { DeviceDescription($0, host) }
}

/// Describes one device or image.
///
/// - Parameters:
///   - path: its path.
///   - name: what to call it.
///   - view: where the machine tells about its devices.
/// - Returns: what is known of it.
/// - Throws: a failure where there is no such device; a refusal of what is none.
package func describe(
    path: String, as name: String, view: SystemView = SystemView()
) throws(ProbeError) -> DeviceDescription {
    let status: FileStatus
    do throws(Errno) { status = try FileStatus(path: path) } catch {
        throw .failed(IOError(name, "open", error))
    }
    let host = HostState(view)
    switch status.kind {
    case .blockDevice:
        if let error = host.blindness { throw .failed(error) }
        let all = inventory(host, probing: false)
        guard var entry = all.first(where: { $0.number == status.device }) else {
            throw .failed(IOError(name, "find device", reason: "it has no size or is not attached"))
        }
        entry.probe(host)
        entry.probePartitionTable(host, among: all)
        entry.path = name
        return DeviceDescription(entry, host)
    case .regular:
        return DeviceDescription(image: path, as: name, status, host)
    case .directory, .other:
        throw .refused(.wrongKind(name, path))
    }
}

extension DeviceDescription {
    fileprivate init(_ entry: InventoryEntry, _ host: HostState) {
        self.entry = entry
        identity = .device(entry.number)
        isImage = false
        hardwareName = host[entry.number].flatMap { $0.hardwareName(in: host.view) }
        uses = host.uses(of: entry.number).map(\.kind)
    }

    fileprivate init(image path: String, as name: String, _ status: FileStatus, _ host: HostState) {
        let file = FileIdentity(status)
        identity = .image(file, path: path)
        isImage = true
        entry = InventoryEntry(
            path: name, number: 0, size: status.size, logicalSector: 512, isReadOnly: false,
            inUseBy: [], hasNode: true)
        uses = host.uses(of: file).map(\.kind)
        do throws(Errno) {
            let prober = try Prober(
                path: path, identity: identity, size: status.size, logicalSector: nil)
            entry.set(prober.content())
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
    fileprivate func hardwareName(in view: SystemView) -> String? {
        guard disk == nil else { return nil }
        let entry = String(name.map { $0 == "/" ? "!" : $0 })
        let directory = "\(view.sys)/class/block/\(entry)"
        for (file, tag) in [
            ("device/wwid", "WWN"), ("wwid", "WWN"), ("serial", "SERIAL"),
            ("device/serial", "SERIAL"),
        ] {
            let words = (readSmallFile("\(directory)/\(file)") ?? "")
                .split(whereSeparator: \.isWhitespace)
            if !words.isEmpty { return "\(tag)=\(words.joined(separator: "-"))" }
        }
        return nil
    }
}
