// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import DeviceProbe
import Foundation
import LogicalVolumes
import TestSupport

/// A script in place of LVM: prints reports from its files, and records requested changes.
final class ScriptedGroup {
    let scratch: ScratchDirectory

    init(group: String = "vg0", free: Int = 100 << 20, volumes: [[String: String]] = []) throws {
        scratch = try ScratchDirectory()
        try must(
            "sh", "-c", "cat >\"$0\" && chmod +x \"$0\"", scratch.file("lvm"),
            input: """
                #!/bin/sh
                cd '\(scratch.path)' || exit 9
                case "$1" in
                    lvs) cat lvs ;;
                    vgs)
                        for last; do :; done
                        if [ "$last" = '\(group)' ]; then cat vgs; else
                            echo "  Volume group \\"$last\\" not found" >&2
                            exit 5
                        fi
                        ;;
                    *)
                        command=$1
                        shift 4
                        echo "$command $*" >>calls
                        for once in once*; do
                            [ -f "$once" ] || break
                            rm "$once"
                            cat message >&2
                            exit 5
                        done
                        [ ! -f fails ] || case "$command $*" in
                            *"$(cat fails)"*) echo '  It does not go.' >&2; exit 5 ;;
                        esac
                        ;;
                esac
                """)
        try write(
            "vgs",
            [
                "report": [
                    ["vg": [["vg_name": group, "vg_extent_size": "4194304", "vg_free": "\(free)"]]]
                ]
            ])
        let rows = volumes.map { volume in
            [
                "vg_name": group, "vg_uuid": "g", "lv_size": "8388608", "vg_free": "\(free)",
                "vg_extent_size": "4194304", "segtype": "linear", "lv_attr": "-wi-a-----",
                "lv_uuid": volume["lv_name"] ?? "",
                "lv_dm_path": "/dev/mapper/\(group)-\(volume["lv_name"] ?? "")",
            ].merging(volume) { $1 }
        }
        try write("lvs", ["report": [["lv": rows]]])
    }

    private func write(_ name: String, _ report: Any) throws {
        try JSONSerialization.data(withJSONObject: report)
            .write(to: URL(fileURLWithPath: scratch.file(name)))
    }

    /// Has every change fail with this in its arguments.
    func refuse(_ words: String) throws {
        try words.write(toFile: scratch.file("fails"), atomically: true, encoding: .utf8)
    }

    /// Has the next changes fail with a message.
    func refuse(count: Int, _ message: String) throws {
        try message.write(toFile: scratch.file("message"), atomically: true, encoding: .utf8)
        for number in 0..<count {
            try "".write(toFile: scratch.file("once\(number)"), atomically: true, encoding: .utf8)
        }
    }

    /// What it was to change, one command each.
    var calls: [String] {
        let text = try? String(contentsOfFile: scratch.file("calls"), encoding: .utf8)
        return (text ?? "").split(separator: "\n").map(String.init)
    }

    var all: LVMVolumeManager { LVMVolumeManager(program: scratch.file("lvm")) }

    /// The same, where a report may take so long.
    func all(within patience: Duration) -> LVMVolumeManager {
        LVMVolumeManager(program: scratch.file("lvm"), patience: patience)
    }

    /// The only volume there is.
    func volume() throws -> any ManagedVolume { try all.volume(at: "/dev/mapper/vg0-root") }
}
