// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Foundation
import LogicalVolumes
import TestSupport

/// A script in place of lvm(8): `lvs` prints a report from a file, everything else is noted, and
/// fails where a file says so.
final class ScriptedLVM: Sendable {
    let scratch: ScratchDirectory

    init(_ volumes: [String] = []) throws {
        scratch = try ScratchDirectory()
        try must(
            "sh", "-c", "cat >\"$0\" && chmod +x \"$0\"", scratch.file("lvm"),
            input: """
                #!/bin/sh
                cd '\(scratch.path)' || exit 9
                [ ! -f "fails-$1" ] || { cat "fails-$1" >&2; exit 5; }
                case "$1" in
                    lvs)
                        echo "$*" >asked
                        cat report
                        ;;
                    *) echo "$*" >>changes ;;
                esac

                """)
        put(volumes)
    }

    /// What lvs reports from now on.
    func put(_ volumes: [String]) {
        put(
            "report",
            "{\"report\": [{\"lv\": [\(volumes.joined(separator: ","))]}], \"log\": []}")
    }

    func put(_ name: String, _ text: String) {
        _ = FileManager.default.createFile(atPath: scratch.file(name), contents: Data(text.utf8))
    }

    /// The commands that were to change something, without what all of them have.
    var changes: [String] {
        let text = (try? String(contentsOfFile: scratch.file("changes"), encoding: .utf8)) ?? ""
        return text.split(separator: "\n").map {
            $0.replacingOccurrences(of: "--quiet --quiet --yes ", with: "")
        }
    }

    func lvm() throws -> LVM { try LVM(program: scratch.file("lvm")) }

    /// A line of lvs's report: a thin volume of vg0, or a snapshot of `root`.
    static func json(_ name: String, tags: [String], origin: String? = "root") -> String {
        """
        {"vg_name":"vg0","vg_uuid":"G","lv_name":"\(name)","lv_uuid":"U-\(name)",
        "lv_size":"67108864","segtype":"thin","pool_lv":"pool","origin":"\(origin ?? "")",
        "origin_uuid":"\(origin.map { "U-\($0)" } ?? "")","thin_id":"2","transaction_id":"1",
        "lv_tags":"\(tags.joined(separator: ","))","snap_percent":"","data_percent":"50.00",
        "vg_free":"1048576","vg_extent_size":"4194304","lv_attr":"Vri-a-tz--",
        "lv_dm_path":"/dev/mapper/vg0-\(name)"}
        """
    }

    static func volume(
        _ name: String, tags: [String], origin: String? = "root"
    ) throws -> LogicalVolume {
        let text = json(name, tags: tags, origin: origin)
        return try JSONDecoder().decode(LogicalVolume.self, from: Data(text.utf8))
    }
}
