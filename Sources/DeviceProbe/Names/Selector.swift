// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import LinuxIO
internal import LogicalVolumes

/// The user's name for a device of this machine.
package enum Selector: Hashable, Sendable {
    /// Names other than a path; see fstab(5).
    package enum Tag: String, CaseIterable, Sendable {
        /// UUID of the file system or other content.
        case uuid = "UUID"
        /// Label of the file system or other content.
        case label = "LABEL"
        /// UUID of the partition, from its disk's partition table.
        case partUUID = "PARTUUID"
        /// Name of the partition, from its disk's partition table.
        case partLabel = "PARTLABEL"
        /// UUID of the logical volume, with or without dashes.
        case lvUUID = "LVUUID"
    }

    case path(String)
    case tag(Tag, String)

    /// Reads a selector; a text without a tag's name and `=` is a path, so `./UUID=x` is a file.
    ///
    /// A path may also be the name of a logical volume; see `resolve`.
    package init(_ text: String) {
        // As characters, a combining mark at the start of a label would hide the sign.
        guard let equals = text.utf8.firstIndex(of: UInt8(ascii: "=")),
            let tag = Tag(rawValue: String(text[..<equals]))
        else {
            self = .path(text)
            return
        }
        self = .tag(tag, String(text[text.utf8.index(after: equals)...]))
    }
}

extension Selector: CustomStringConvertible {
    /// The text that it was read from.
    package var description: String {
        switch self {
        case .path(let path): path
        case .tag(let tag, let value): "\(tag.rawValue)=\(value)"
        }
    }
}

// Compares bytes, since two devices may have labels, and two files names, that differ only in their
// Unicode form.
extension Selector {
    package static func == (one: Selector, other: Selector) -> Bool {
        switch (one, other) {
        case (.path(let path), .path(let theirs)): path.isSame(as: theirs)
        case (.tag(let tag, let value), .tag(let theirTag, let theirs)):
            tag == theirTag && value.isSame(as: theirs)
        case (.path, .tag), (.tag, .path): false
        }
    }

    package func hash(into hasher: inout Hasher) {
        switch self {
        case .path(let path): hasher.combine(ByteString(path))
        case .tag(let tag, let value):
            hasher.combine(tag)
            hasher.combine(ByteString(value))
        }
    }
}

/// Finds the path of the device that a selector means.
///
/// - Returns: a path as it is, whether it exists or not, except for `group/volume` of an active
///   logical volume.
/// - Throws: a failure if no device matches; a refusal if several devices match, or if both a
///   volume and a file have the name.
package func resolve(
    _ selector: Selector, view: SystemView = SystemView()
) throws(IOError) -> String {
    try find(selector, view: view).path
}

struct FoundDevice {
    var path: String
    /// Paths of devices that did not answer, and that the selector may mean as well.
    var rivals: [String] = []
}

/// Finds the device and other possible matches; a path reads no other device.
func find(_ selector: Selector, view: SystemView) throws(IOError) -> FoundDevice {
    switch selector {
    case .path(let path): return FoundDevice(path: try logicalVolume(path, view) ?? path)
    case .tag(let tag, let value): return try find(tag, value, view)
    }
}

/// The device file of a logical volume named `group/volume`; `nil` for other texts.
private func logicalVolume(_ text: String, _ view: SystemView) throws(IOError) -> String? {
    guard !text.hasPrefix("."), let name = VolumeName(text[...])?.mapperName else { return nil }
    let volume = HostState(view).devices.first {
        $0.mapperName?.isSame(as: name) == true && $0.logicalVolumeUUID != nil && $0.size > 0
    }
    // The file may be the volume's own device file, as in /dev.
    if let volume, let file = try? FileStatus(path: text), file.device != volume.number {
        throw .refusal(
            .ambiguousSelector, text, "there is a logical volume and a file of that name",
            advice: "Say \(volume.path) or ./\(text).")
    }
    return volume?.path
}

private func find(
    _ tag: Selector.Tag, _ value: String, _ view: SystemView
) throws(IOError) -> FoundDevice {
    let text = "\(tag.rawValue)=\(value)"
    let host = HostState(view)
    // Without /proc only the uses are unknown, which do not matter here.
    if host.devices.isEmpty, let error = host.blindness { throw error }
    let all: [InventoryEntry]
    if tag == .lvUUID {
        all = entries(of: host)
    } else {
        let inventory = Inventory(host)
        all = inventory.devices.indices.map { inventory.entry($0) }
        if let error = inventory.shortage { throw error }
    }
    let matches = all.filter { $0.matches(tag, value) }
    if matches.count > 1 {
        let names = view.names(of: matches)
        let list = zip(names, matches).map { "\($0) (\($1.summary))" }.joined(separator: "; ")
        throw .refusal(
            .ambiguousSelector, text, "\(matches.count) devices have it: \(list)",
            advice: matches.contains { $0.volumeName != nil }
                ? "Name the one that is meant by its group and volume, or by its path."
                : "Name the one that is meant by its path.")
    }
    guard let match = matches.first else {
        throw noMatch(
            text, leftOut: all.first { !$0.isPartOfVolume && $0.has(tag, value) },
            unreadable: all.filter { $0.unreadable != nil })
    }
    guard match.hasNode else {
        throw IOError(
            text, "find device",
            reason: "it is on \(match.path), but there is no such device file",
            advice: "Without udev: mknod \(match.path) b \(match.majorMinor)")
    }
    return FoundDevice(
        path: match.path,
        rivals: all.filter { $0.number != match.number && $0.mayMatch(tag) }.map(\.path))
}

/// Why no device was found; unreadable devices may have matched.
private func noMatch(
    _ text: String, leftOut: InventoryEntry?, unreadable: [InventoryEntry]
) -> IOError {
    if let leftOut {
        return IOError(
            text, "find device",
            reason: "only a snapshot that blkferry has taken has it, \(leftOut.path)",
            advice: "Name that by its path, if it is meant.")
    }
    guard let first = unreadable.first else {
        return IOError(text, "find device", reason: "no device of this machine has it")
    }
    if let late = unreadable.first(where: \.isLate) {
        return IOError(
            text, "find device",
            reason: "no device that answers has it, and \(late.path) does not answer",
            advice: "Try again, or name the device that is meant by its path.")
    }
    return IOError(
        text, "find device", reason: "no device that can be read has it",
        advice: "\(unreadable.count) could not be read, such as \(first.path): "
            + "\(first.unreadable ?? "")")
}

extension InventoryEntry {
    /// Whether a selector's tag means this device.
    ///
    /// Snapshots that blkferry has taken have the tags of their volume, but no user means them by
    /// any tag other than `LVUUID=`. Parts of volumes never match.
    func matches(_ tag: Selector.Tag, _ value: String) -> Bool {
        !isPartOfVolume && (tag == .lvUUID || !isOwnSnapshot) && has(tag, value)
    }

    /// Whether the device did not answer, and may have any value of a tag.
    func mayMatch(_ tag: Selector.Tag) -> Bool {
        guard isLate, !isPartOfVolume, !isOwnSnapshot else { return false }
        return switch tag {
        case .uuid, .label: true
        // Newer kernels report UUIDs and names of the partition table.
        case .partUUID, .partLabel: isPartition && partUUID == nil
        case .lvUUID: false
        }
    }

    fileprivate func has(_ tag: Selector.Tag, _ value: String) -> Bool {
        func isSame(_ text: String?) -> Bool { text?.lowercased() == value.lowercased() }
        let superblocks = (content?.found ?? []).filter { $0.usage != .partitionTable }
        switch tag {
        case .uuid: return superblocks.contains { isSame($0.uuid) }
        case .label: return superblocks.contains { $0.label?.isSame(as: value) == true }
        case .partUUID: return isSame(partUUID)
        case .partLabel: return partLabel?.isSame(as: value) == true
        case .lvUUID:
            // LVM's characters are case-sensitive.
            func plain(_ text: String) -> String { text.filter { $0 != "-" } }
            return lvUUID.map(plain) == plain(value)
        }
    }

    fileprivate var summary: String {
        (["\(size) bytes"] + inUseBy).joined(separator: ", ")
    }
}
