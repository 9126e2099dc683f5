// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

/// The name of a logical volume.
package struct VolumeName: Hashable, Sendable {
    package var group: String
    package var volume: String

    /// `group/volume`.
    package var text: String { "\(group)/\(volume)" }

    package init(group: String, volume: String) {
        self.group = group
        self.volume = volume
    }

    /// Splits `group/volume`; `nil` if the text has another form.
    ///
    /// The names are not checked, unlike those of a `VolumePlace`, and a pool stays in `volume`.
    package init?(_ text: Substring) {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count == 2, !parts.contains("") else { return nil }
        group = String(parts[0])
        volume = String(parts[1])
    }

    /// The name in /dev/mapper.
    ///
    /// Source: `dm_build_dm_name` of libdevmapper doubles hyphens within names, and puts one
    /// between them. A suffix such as `-cow` makes it the name of a part.
    package var mapperName: String {
        [group, volume].map { name in name.map { $0 == "-" ? "--" : String($0) }.joined() }
            .joined(separator: "-")
    }

    /// Parses a `mapperName`; `nil` if it is not a volume's, or has the suffix of a part.
    package init?(mapperName: String) {
        var parts = [""]
        var rest = mapperName[...]
        while let character = rest.popFirst() {
            if character != "-" {
                parts[parts.count - 1].append(character)
            } else if rest.first == "-" {
                rest.removeFirst()
                parts[parts.count - 1].append("-")
            } else {
                parts.append("")
            }
        }
        guard parts.count == 2 else { return nil }
        group = parts[0]
        volume = parts[1]
    }
}
