// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
internal import LinuxIO
internal import SystemPackage

/// Names that LVM knows, whether or not there is a device; for what the kernel does not tell.
///
/// Nothing is known where LVM cannot be asked: without root, without its program, or while somebody
/// else holds its lock.
package struct KnownVolumes: Sendable {
    /// A logical volume.
    struct Volume: Hashable, Sendable {
        var identity: VolumeIdentity
        var name: VolumeName
        /// Of a snapshot: what it was taken of.
        var origin: String?
    }

    private let program: String?

    package init(_ view: SystemView = SystemView()) {
        program = geteuid() == 0 ? Program.findOfSystem(view.lvm) : nil
    }

    /// How long LVM may take: it waits for others that have its lock.
    private static let patience = Duration.seconds(10)
    /// Bytes of a report that are read at most.
    private static let limit = 16 << 20

    /// The names of all volume groups; `nil` where that is not known.
    package func groups() -> Set<String>? {
        report("vgs", "vg_name").map { rows in Set(rows.compactMap(\.first)) }
    }

    /// All volumes but parts of them; `nil` where that is not known.
    func volumes() -> [Volume]? {
        report("lvs", "vg_uuid,lv_uuid,vg_name,lv_name,origin").map { rows in
            rows.compactMap { row in
                guard row.count == 5 else { return nil }
                return Volume(
                    identity: VolumeIdentity(groupUUID: row[0], uuid: row[1]),
                    name: VolumeName(group: row[2], volume: row[3]),
                    origin: row[4].isEmpty ? nil : row[4].filter { $0 != "[" && $0 != "]" })
            }
        }
    }

    /// Asks for fields, of which none can hold a slash.
    private func report(_ command: String, _ fields: String) -> [[String]]? {
        let end = ContinuousClock.now + Self.patience
        let arguments = [
            command, "--config",
            "report { prefixes=0 quoted=0 columns_as_rows=0 compact_output=0 output_format=\"basic\" }",
            "--noheadings", "--separator", "/", "--options", fields,
        ]
        guard let program,
            let run = try? ProgramRun(
                program, arguments, reading: .wholeOutput(limit: Self.limit),
                unless: { ContinuousClock.now > end }), run.failure == nil
        else { return nil }
        return String(decoding: run.bytes, as: UTF8.self).split(separator: "\n").map { line in
            line.split(separator: "/", omittingEmptySubsequences: false)
                .map { $0.split(separator: " ").joined() }
        }
    }
}

extension KnownVolumes {
    /// What each of several devices is a snapshot of; `nil` for what is none, as far as is known.
    package func origins(of entries: [InventoryEntry]) -> [VolumeName?] {
        let areVolumes = entries.contains { $0.volumeName != nil }
        let known = areVolumes ? volumes() ?? [] : []
        return entries.map { entry in
            guard let name = entry.volumeName else { return nil }
            return known.first { $0.identity == entry.volumeIdentity }?.origin
                .map { VolumeName(group: name.group, volume: $0) }
        }
    }

    /// How devices that one name could mean are told apart, one text each.
    ///
    /// - Parameter entries: the devices.
    /// - Returns: `vg0/monday, a snapshot of vg0/root`, or the path of what is no volume.
    func names(of entries: [InventoryEntry]) -> [String] {
        zip(entries, origins(of: entries)).map { entry, origin in
            (entry.volumeName?.text ?? entry.path)
                + (origin.map { ", a snapshot of \($0.text)" } ?? "")
        }
    }
}
