// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import DeviceProbe
internal import LinuxIO
internal import LogicalVolumes

/// A line of an exports file, or `--export`: `SELECTOR[:ro|:rw[,create]]`.
package struct ExportSelector: Hashable, Sendable {
    package var selector: Selector
    /// As it was written, without the access.
    package var text: String
    package var access: ExportAccess
    /// Whether the path ends with a slash: a directory of images.
    package var isDirectory: Bool
    /// Set if all volumes of a group are exported: `group` or `group/*`; `text` is `/dev/group/`.
    package var group: String?
    /// Whether clients may create missing logical volumes and snapshots.
    package var canCreate = false
    /// Whether it was written as `group/volume`; `text` is `/dev/group/volume`.
    package var isVolumeName: Bool
    package var hasAccess: Bool

    /// Parses an export; a colon without `ro`, `rw` or `rw,create` at the end is part of a path.
    package init(_ text: String) throws(WireError) {
        // Compare scalars, because a path's last scalar can form one character with the colon.
        var rest = text.unicodeScalars[...]
        access = .readOnly
        hasAccess = false
        for word in [
            Self.creating, ExportAccess.readOnly.rawValue, ExportAccess.readWrite.rawValue,
        ] {
            let suffix = ":\(word)".unicodeScalars
            guard rest.suffix(suffix.count).elementsEqual(suffix) else { continue }
            rest = rest.dropLast(suffix.count)
            access = ExportAccess(rawValue: word) ?? .readWrite
            canCreate = word == Self.creating
            hasAccess = true
            break
        }
        guard !rest.isEmpty else { throw WireError("\(text): it names nothing") }
        self.text = String(rest)
        group = Self.group(in: self.text)
        isVolumeName = group == nil && Self.isVolumeName(self.text)
        if let group { self.text = "/dev/\(group)/" }
        if isVolumeName { self.text = "/dev/\(self.text)" }
        selector = Selector(self.text)
        switch selector {
        case .path(let path):
            guard path.begins(with: "/") else {
                throw WireError(
                    "\(text): not an absolute path, nor UUID= or another tag, nor a volume group"
                        + " or volume")
            }
            isDirectory = group == nil && path.hasSuffix("/")
        case .tag(_, let value):
            guard !value.isEmpty else { throw WireError("\(text): the value is missing") }
            isDirectory = false
        }
        if canCreate && group == nil && !Self.canBeVolume(self.text) {
            throw WireError("\(text): only logical volumes are made: GROUP:rw,create")
        }
    }

    /// Whether text may lead to a logical volume; only the device decides.
    ///
    /// A file system's tag may also lead to its snapshots.
    package static func canBeVolume(_ text: String) -> Bool {
        if text.hasSuffix("/") { return false }
        return VolumePlace(text) != nil
            || ["LVUUID=", "/dev/mapper/", "/dev/disk/", "/dev/dm-"].contains { text.hasPrefix($0) }
    }

    private static let creating = "rw,create"

    /// Text that parses to the same export, except for the access.
    package var name: String {
        group ?? (isVolumeName ? String(text.dropFirst("/dev/".count)) : text)
    }

    /// Text that parses to the same export.
    package var line: String { "\(name):\(canCreate ? Self.creating : access.rawValue)" }

    private static func group(in text: String) -> String? {
        let name = text.hasSuffix("/*") ? text.dropLast(2) : text[...]
        return VolumePlace.isName(name) ? String(name) : nil
    }

    /// Whether text is `group/volume`, with or without a pool, as in LVM's commands.
    ///
    /// As elsewhere, text that starts with a dot is a path. In `dev/sda` only a slash is missing.
    private static func isVolumeName(_ text: String) -> Bool {
        !["/", ".", "dev/"].contains { text.hasPrefix($0) } && VolumePlace(text) != nil
    }

    package static func isTag(_ text: some StringProtocol) -> Bool {
        if case .tag = Selector(String(text)) { true } else { false }
    }
}

// Compares bytes, as the kernel does.
extension ExportSelector {
    package static func == (one: ExportSelector, other: ExportSelector) -> Bool {
        one.selector == other.selector && one.text.isSame(as: other.text)
            && one.group == other.group && one.access == other.access
            && (one.isDirectory, one.canCreate, one.isVolumeName, one.hasAccess)
                == (other.isDirectory, other.canCreate, other.isVolumeName, other.hasAccess)
    }

    package func hash(into hasher: inout Hasher) {
        hasher.combine(ByteString(text))
        hasher.combine(access)
    }
}

/// Parses an exports file, in which `#` starts a comment at the start of a line or after white
/// space.
///
/// - Parameter name: the file's path, for errors, which also have the line.
package func exports(
    inFile text: String, named name: String
) throws(WireError) -> [ExportSelector] {
    var exports: [ExportSelector] = []
    for (number, line) in contentLines(of: text) {
        do throws(WireError) { exports.append(try ExportSelector(String(line))) } catch {
            throw WireError("\(name):\(number): \(error.reason)")
        }
    }
    return exports
}

/// The lines of a file without comments and empty lines; their numbers count from 1.
package func contentLines(of text: String) -> [(number: Int, line: Substring)] {
    text.split(omittingEmptySubsequences: false) { $0.isNewline }.enumerated()
        .map { ($0 + 1, withoutComment($1)) }
        .filter { !$0.1.isEmpty }
}

private func withoutComment(_ line: Substring) -> Substring {
    var end = line.endIndex
    var previous: Character = " "
    for index in line.indices {
        if line[index] == "#" && (previous == " " || previous == "\t") {
            end = index
            break
        }
        previous = line[index]
    }
    return trimmed(line[..<end])
}

/// The text without spaces and tabs at both ends.
package func trimmed(_ text: Substring) -> Substring {
    var content = text
    while let first = content.first, first == " " || first == "\t" { content.removeFirst() }
    while let last = content.last, last == " " || last == "\t" { content.removeLast() }
    return content
}
