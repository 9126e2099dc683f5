// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

/// Where to create a logical volume: `group/volume`, with `@pool` for a thin one.
package struct VolumePlace: Hashable, Sendable {
    package var group: String
    package var volume: String
    package var pool: String?
    /// Finds an existing volume: the text without the pool.
    package var selector: String

    /// `group/volume`.
    package var name: String { "\(group)/\(volume)" }

    /// Reads a place, also in the form `/dev/group/volume`; `nil` if no volume can have the name.
    package init?(_ text: String) {
        let parts = text.split(separator: "@", maxSplits: 1, omittingEmptySubsequences: false)
        selector = String(parts[0])
        let device = selector.hasPrefix("/dev/") ? selector.dropFirst("/dev/".count) : selector[...]
        guard let name = VolumeName(device), name.group != "mapper", Self.isName(name.group),
            Self.isName(name.volume), parts.dropFirst().allSatisfy(Self.isName)
        else { return nil }
        group = name.group
        volume = name.volume
        pool = parts.count > 1 ? String(parts[1]) : nil
    }

    /// Whether LVM reserves the name, mostly for parts of volumes; see lvm(8), "Valid names".
    package static func isReserved(_ name: String) -> Bool {
        if ["snapshot", "pvmove"].contains(where: { name.hasPrefix($0) }) { return true }
        return [
            "_cdata", "_cmeta", "_corig", "_iorig", "_mimage", "_mlog", "_pmspare", "_rimage",
            "_rmeta", "_tdata", "_tmeta", "_vdata", "_vorigin",
        ].contains { name.contains($0) }
    }

    /// Whether a text can name a group or volume, except for reserved words; see lvm(8), "Valid
    /// names".
    package static func isName(_ text: some StringProtocol) -> Bool {
        (1...127).contains(text.utf8.count) && text != "." && text != ".." && !text.hasPrefix("-")
            && text.utf8.allSatisfy { byte in
                switch byte {
                case UInt8(ascii: "a")...UInt8(ascii: "z"),
                    UInt8(ascii: "A")...UInt8(ascii: "Z"),
                    UInt8(ascii: "0")...UInt8(ascii: "9"),
                    UInt8(ascii: "+"), UInt8(ascii: "_"), UInt8(ascii: "."), UInt8(ascii: "-"):
                    true
                default: false
                }
            }
    }
}
