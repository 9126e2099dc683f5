// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import DeviceProbe

/// What `--export`, and a line of an exports file, offers: `SELECTOR[:ro|:rw[,create]]`.
package struct ExportSelector: Hashable, Sendable {
    package var selector: Selector
    /// As it was written, without the access.
    package var text: String
    package var access: ExportAccess
    /// Whether a directory of images is meant: its path ends with a slash.
    package var isDirectory: Bool
    /// The volume group that is meant, with all of its volumes: it was written `group` or `group/*`,
    /// and `text` is `/dev/group/`.
    package var group: String?
    /// Whether a logical volume that is missing, and snapshots of one, may be made.
    package var canCreate = false
    /// Whether it was written `group/volume`; `text` is `/dev/group/volume`.
    package var isVolumeName: Bool
    /// Whether an access was written.
    package var hasAccess: Bool

    /// Reads an export; a colon that is not followed by `ro`, `rw` or `rw,create` at the end is part
    /// of a path.
    ///
    /// - Throws: when it names nothing, or a path that is not absolute.
    package init(_ text: String) throws(WireError) {
        // By scalars: some characters of a path would be one with the colon that follows them.
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
            guard path.hasPrefix("/") else {
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

    /// Whether text may lead to a logical volume; a look at the device tells in the end.
    ///
    /// Tags of a file system may lead to its snapshots as well.
    package static func canBeVolume(_ text: String) -> Bool {
        if text.hasSuffix("/") { return false }
        return VolumePlace(text) != nil
            || ["LVUUID=", "/dev/mapper/", "/dev/disk/", "/dev/dm-"].contains { text.hasPrefix($0) }
    }

    private static let creating = "rw,create"

    /// What is read as the same, but for the access.
    package var name: String {
        group ?? (isVolumeName ? String(text.dropFirst("/dev/".count)) : text)
    }

    /// What is read as the same export.
    package var line: String { "\(name):\(canCreate ? Self.creating : access.rawValue)" }

    /// The volume group that text names, alone or with `/*` behind.
    private static func group(in text: String) -> String? {
        let name = text.hasSuffix("/*") ? text.dropLast(2) : text[...]
        return VolumePlace.isName(name) ? String(name) : nil
    }

    /// Whether text names a volume as LVM's programs do: `group/volume`, with a pool or without.
    ///
    /// As everywhere else what begins with a point is a path; and in `dev/sda` only a slash is
    /// missing.
    private static func isVolumeName(_ text: String) -> Bool {
        !["/", ".", "dev/"].contains { text.hasPrefix($0) } && VolumePlace("/dev/\(text)") != nil
    }

    /// Whether text starts with a tag's name and `=`.
    package static func isTag(_ text: some StringProtocol) -> Bool {
        if case .tag = Selector(String(text)) { true } else { false }
    }
}

/// Reads an exports file: one export a line; `#` begins a comment at the start of a line or after
/// white space.
///
/// - Parameters:
///   - text: the file.
///   - name: its path, for messages.
/// - Returns: the exports in the order of the file.
/// - Throws: for the first line that is none, with file and line.
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

/// The lines of a file that are more than a comment, each with its number, from 1.
func contentLines(of text: String) -> [(number: Int, line: Substring)] {
    text.split(omittingEmptySubsequences: false) { $0.isNewline }.enumerated()
        .map { ($0 + 1, withoutComment($1)) }
        .filter { !$0.1.isEmpty }
}

/// A line without its comment and the white space around.
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
    var content = line[..<end]
    while let first = content.first, first == " " || first == "\t" { content.removeFirst() }
    while let last = content.last, last == " " || last == "\t" { content.removeLast() }
    return content
}
