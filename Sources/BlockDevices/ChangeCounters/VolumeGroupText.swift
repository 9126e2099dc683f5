// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

/// One version of a volume group's metadata: sections in braces, one value a line.
///
/// Source: lib/format_text/export.c of LVM2.
struct VolumeGroupText {
    /// The group's UUID without hyphens.
    let group: String
    /// The `seqno`, which each change of the group increments.
    let version: Int
    /// Bytes, including the terminating zero byte.
    let length: Int

    private struct Volume {
        var uuid = ""
        var segments: [Substring] = []
    }

    /// The logical volumes by name.
    private let volumes: [String: Volume]
    /// The lines that determine where extents of the physical volumes are.
    private let disks: [Substring]

    /// Parses a text without its zero byte; `nil` if braces do not match or a necessary value is
    /// missing.
    init?(_ bytes: some Collection<UInt8>) {
        var path: [Substring] = []
        var (group, version): (String?, Int?) = (nil, nil)
        var volumes: [String: Volume] = [:]
        var disks: [Substring] = []
        for line in String(decoding: bytes, as: UTF8.self).split(separator: "\n") {
            let line = line.drop { $0 == "\t" || $0 == " " }
            let isStart = line.hasSuffix("{")
            if line == "}" {
                guard path.popLast() != nil else { return nil }
                continue
            }
            if isStart { path.append(line.dropLast().prefix { $0 != " " }) }
            switch (path.count, path.count > 1 ? path[1] : "") {
            case (1, _):
                if let text = Self.value("id", line) { group = Self.uuid(text) }
                if let text = Self.value("seqno", line) { version = Int(text) }
            case (3, "physical_volumes"):
                if isStart || ["id", "pe_start"].contains(where: { Self.value($0, line) != nil }) {
                    disks.append(line)
                }
            case (3, "logical_volumes"):
                let text = Self.value("id", line)
                if let text { volumes[String(path[2]), default: Volume()].uuid = Self.uuid(text) }
            case (4..., "logical_volumes"):
                volumes[String(path[2]), default: Volume()].segments.append(line)
            default: break
            }
        }
        guard path.isEmpty, let group, let version else { return nil }
        self.group = group
        self.version = version
        self.volumes = volumes
        self.disks = disks
        length = bytes.count + 1
    }

    private static func value(_ name: String, _ line: Substring) -> Substring? {
        line.hasPrefix("\(name) = ") ? line.dropFirst(name.count + 3) : nil
    }

    private static func uuid(_ text: Substring) -> String {
        text.split(separator: "\"").first.map { $0.filter { $0 != "-" } } ?? ""
    }

    /// The lines of a volume's segments and of the volumes below it; equal lines mean equal
    /// extents.
    ///
    /// It is `nil` if there is no such volume.
    ///
    /// - Parameter uuid: without hyphens.
    func extents(of uuid: String) -> [Substring]? {
        guard let top = volumes.first(where: { $0.value.uuid == uuid })?.key else { return nil }
        var lines = disks
        var names = [top]
        var seen: Set<String> = []
        while let name = names.popLast() {
            guard seen.insert(name).inserted, let volume = volumes[name] else { continue }
            lines += [name[...]] + volume.segments
            for line in volume.segments {
                // Every second piece was in quotes.
                let pieces = line.split(separator: "\"", omittingEmptySubsequences: false)
                for index in pieces.indices where index % 2 == 1 {
                    let other = String(pieces[index])
                    if volumes[other] != nil { names.append(other) }
                }
            }
        }
        return lines
    }
}
