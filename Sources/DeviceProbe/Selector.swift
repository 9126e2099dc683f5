// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import LinuxIO

/// How a person names a device of this machine.
package enum Selector: Hashable, Sendable {
    /// What a device can be named by besides its path; see fstab(5).
    package enum Tag: String, CaseIterable, Sendable {
        /// UUID of the file system or the like that is on it.
        case uuid = "UUID"
        /// Label of the same.
        case label = "LABEL"
        /// UUID of the partition, from the partition table of its disk.
        case partUUID = "PARTUUID"
        /// Name of the partition, from the same.
        case partLabel = "PARTLABEL"
        /// UUID of the logical volume, with or without dashes.
        case lvUUID = "LVUUID"
    }

    case path(String)
    case tag(Tag, String)

    /// Reads a selector; all that does not start with a tag's name and `=` is a path, so `./UUID=x`
    /// is the file of that name.
    ///
    /// A path may also be the name of a logical volume; see `resolve`.
    package init(_ text: String) {
        guard let equals = text.firstIndex(of: "="),
            let tag = Tag(rawValue: String(text[..<equals]))
        else {
            self = .path(text)
            return
        }
        self = .tag(tag, String(text[text.index(after: equals)...]))
    }
}

/// Finds the device that a selector means.
///
/// - Parameters:
///   - selector: what the user wrote.
///   - view: where the machine tells about its devices.
/// - Returns: the path of a device file; a selector that is a path is returned as it is, whether
///   there is such a file or not, unless it is `group/volume` of an active logical volume.
/// - Throws: a failure when no device matches; a refusal that lists them when several do, or where
///   there is both a volume and a file of that name.
package func resolve(
    _ selector: Selector, view: SystemView = SystemView()
) throws(ProbeError) -> String {
    switch selector {
    case .path(let path): return try logicalVolume(path, view) ?? path
    case .tag(let tag, let value): return try resolve(tag, value, view)
    }
}

/// The device file of a logical volume that is named as LVM's programs do; `nil` for what is no such
/// name.
private func logicalVolume(_ text: String, _ view: SystemView) throws(ProbeError) -> String? {
    let parts = text.split(separator: "/", omittingEmptySubsequences: false)
    guard parts.count == 2, !parts.contains(""), !text.hasPrefix(".") else { return nil }
    // As libdevmapper builds it: hyphens within names are doubled.
    let name = parts.map { part in part.map { $0 == "-" ? "--" : String($0) }.joined() }
        .joined(separator: "-")
    let volume = HostState(view).devices.first {
        $0.mapperName == name && $0.logicalVolumeUUID != nil && $0.size > 0
    }
    // The file may be the volume's own, as in /dev.
    if let volume, let file = try? FileStatus(path: text), file.device != volume.number {
        throw .refused(
            Refusal(
                .ambiguousSelector, text, "there is a logical volume and a file of that name",
                advice: "Say \(volume.path) or ./\(text)."))
    }
    return volume?.path
}

private func resolve(
    _ tag: Selector.Tag, _ value: String, _ view: SystemView
) throws(ProbeError) -> String {
    let text = "\(tag.rawValue)=\(value)"
    let all = inventory(HostState(view), probing: tag != .lvUUID)
    let matches = all.filter { $0.matches(tag, value) }
    if matches.count > 1 {
        let names = KnownVolumes(view).names(of: matches)
        let list = zip(names, matches).map { "\($0) (\($1.summary))" }.joined(separator: "; ")
        throw .refused(
            Refusal(
                .ambiguousSelector, text, "\(matches.count) devices have it: \(list)",
                advice: matches.contains { $0.volumeName != nil }
                    ? "Name the one that is meant by its group and volume, or by its path."
                    : "Name the one that is meant by its path."))
    }
    guard let match = matches.first else {
        throw .failed(
            noMatch(
                text, leftOut: all.first { !$0.isPartOfVolume && $0.has(tag, value) },
                unreadable: all.filter { $0.unreadable != nil }))
    }
    guard match.hasNode else {
        throw .failed(
            IOError(
                text, "find device",
                reason: "it is on \(match.path), but there is no such device file",
                advice: "Without udev: mknod \(match.path) b \(match.majorMinor)"))
    }
    return match.path
}

/// Why nothing was found; what could not be read may have been it.
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
    return IOError(
        text, "find device", reason: "no device that can be read has it",
        advice: "\(unreadable.count) could not be read, such as \(first.path): "
            + "\(first.unreadable ?? "")")
}

extension InventoryEntry {
    /// Whether a selector's tag means it.
    ///
    /// Snapshots that blkferry has taken of a volume have what the volume has, but nobody means them;
    /// and parts of volumes never are.
    func matches(_ tag: Selector.Tag, _ value: String) -> Bool {
        !isPartOfVolume && (tag == .lvUUID || !isOwnSnapshot) && has(tag, value)
    }

    /// Whether it has what a tag says.
    fileprivate func has(_ tag: Selector.Tag, _ value: String) -> Bool {
        func isSame(_ text: String?) -> Bool { text?.lowercased() == value.lowercased() }
        let superblocks = (content?.found ?? []).filter { $0.usage != .partitionTable }
        switch tag {
        case .uuid: return superblocks.contains { isSame($0.uuid) }
        case .label: return superblocks.contains { $0.label == value }
        case .partUUID: return isSame(partUUID)
        case .partLabel: return partLabel == value
        case .lvUUID:
            // LVM's characters are case-sensitive.
            func plain(_ text: String) -> String { text.filter { $0 != "-" } }
            return lvUUID.map(plain) == plain(value)
        }
    }

    /// For a list of candidates: size and uses.
    fileprivate var summary: String {
        (["\(size) bytes"] + inUseBy).joined(separator: ", ")
    }
}
