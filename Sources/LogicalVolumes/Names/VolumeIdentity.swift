// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices

/// Identifies a logical volume, in the form that lvs(8) prints.
///
/// A group that was imported as a clone gets a new UUID, but its volumes keep theirs; see
/// vgimportclone(8).
package struct VolumeIdentity: Hashable, Sendable {
    package var groupUUID: String
    package var uuid: String

    package init(groupUUID: String, uuid: String) {
        self.groupUUID = groupUUID
        self.uuid = uuid
    }

    /// Parses a device-mapper UUID; `nil` for other devices and for parts of volumes.
    package init?(mapperUUID: String) {
        guard let plain = VolumeUUID(mapper: mapperUUID) else { return nil }
        self.init(groupUUID: Self.dashed(plain.group), uuid: Self.dashed(plain.volume))
    }

    private static func dashed(_ plain: String) -> String {
        var rest = plain[...]
        let groups = [6, 4, 4, 4, 4, 4, 6].map { length in
            defer { rest = rest.dropFirst(length) }
            return rest.prefix(length)
        }
        return groups.joined(separator: "-")
    }
}
