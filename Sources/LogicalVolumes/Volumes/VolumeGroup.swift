// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import LinuxIO

/// A volume group as vgs(8) reports it; sizes in bytes.
package struct VolumeGroup: Hashable, Sendable {
    package var extentSize: Int
    /// Bytes that no volume uses.
    package var free: Int
}

extension LVM {
    package func groupNames() throws(IOError) -> Set<String> {
        let rows: [[String: String]] = try report(["vgs"], ["vg_name"])
        return Set(rows.compactMap { $0["vg_name"] })
    }

    /// Reads a group's current state.
    package func group(_ name: String) throws(IOError) -> VolumeGroup {
        let rows: [[String: String]] = try report(
            ["vgs"], ["vg_extent_size", "vg_free"], of: name)
        guard let row = rows.first, let free = row["vg_free"].flatMap({ Int($0) }),
            let extentSize = row["vg_extent_size"].flatMap({ Int($0) }), extentSize > 0
        else { throw Self.unreadable("vgs") }
        return VolumeGroup(extentSize: extentSize, free: free)
    }
}
