// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import FoundationEssentials
package import LinuxIO

/// A volume group as vgs(8) reports it; sizes in bytes.
package struct VolumeGroup: Hashable, Sendable {
    package var name: String
    package var extentSize: Int
    /// Bytes that no volume uses.
    package var free: Int
}

extension LVM {
    /// Reads a group's current state.
    package func group(_ name: String) throws(IOError) -> VolumeGroup {
        let run = try report(
            ["vgs"] + Self.reporting + ["vg_name,vg_extent_size,vg_free", name])
        guard let report = try? JSONDecoder().decode(GroupReport.self, from: Data(run.bytes)),
            let row = report.report.flatMap(\.vg).first,
            let extentSize = Int(row.vg_extent_size), let free = Int(row.vg_free), extentSize > 0
        else {
            throw IOError("vgs", "report", reason: "what it prints cannot be understood")
        }
        return VolumeGroup(name: row.vg_name, extentSize: extentSize, free: free)
    }
}

private struct GroupReport: Decodable {
    // The names are those of vgs(8).
    struct Row: Decodable {
        var vg_name: String
        var vg_extent_size: String
        var vg_free: String
    }
    struct Part: Decodable { var vg: [Row] }
    var report: [Part]
}
