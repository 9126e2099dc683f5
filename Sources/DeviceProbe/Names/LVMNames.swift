// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
internal import LinuxIO
internal import SystemPackage

/// LVM's volumes and groups, whether or not they are active.
///
/// Nothing is known if LVM cannot be asked: without root, without its program, or while another
/// program holds its lock.
package struct LVMNames: Sendable {
    struct Volume: Hashable, Sendable {
        var identity: VolumeIdentity
        var name: VolumeName
        /// The origin, if the volume is a snapshot.
        var origin: String?
    }

    /// LVM did not answer in time: another program has its lock, or one of the devices it reads
    /// hangs.
    struct NoAnswer: Error {}

    private let program: String?
    private let patience: Duration

    package init(
        _ view: SystemView = SystemView(), patience: Duration = .seconds(10)
    ) {
        program = geteuid() == 0 ? Program.findOfSystem(view.lvm) : nil
        self.patience = patience
    }

    /// Bytes of a report that are read at most.
    private static let limit = 16 << 20

    /// The names of all volume groups; `nil` if unknown.
    package func groups() -> Set<String>? { (try? groupsInTime()) ?? nil }

    /// All volumes without their parts; `nil` if unknown.
    func volumes() -> [Volume]? { (try? volumesInTime()) ?? nil }

    func groupsInTime() throws(NoAnswer) -> Set<String>? {
        try report("vgs", "vg_name").map { rows in Set(rows.compactMap(\.first)) }
    }

    func volumesInTime() throws(NoAnswer) -> [Volume]? {
        try report("lvs", "vg_uuid,lv_uuid,vg_name,lv_name,origin").map { rows in
            rows.compactMap { row in
                guard row.count == 5 else { return nil }
                return Volume(
                    identity: VolumeIdentity(groupUUID: row[0], uuid: row[1]),
                    name: VolumeName(group: row[2], volume: row[3]),
                    origin: row[4].isEmpty ? nil : row[4].filter { $0 != "[" && $0 != "]" })
            }
        }
    }

    /// Reports fields that cannot contain a slash.
    private func report(
        _ command: String, _ fields: String
    ) throws(NoAnswer) -> [[String]]? {
        guard let program else { return nil }
        if ProgramRun.hasLeftBehind(program) { throw NoAnswer() }
        let end = ContinuousClock.now + patience
        let arguments = [
            command, "--config",
            "report { prefixes=0 quoted=0 columns_as_rows=0 compact_output=0 output_format=\"basic\" }",
            "--noheadings", "--separator", "/", "--options", fields,
        ]
        guard
            let run = try? ProgramRun(
                program, arguments, reading: .wholeOutput(limit: Self.limit),
                mayBeLeftBehind: true, unless: { ContinuousClock.now > end })
        else { return nil }
        guard run.failure == nil else {
            if ContinuousClock.now > end { throw NoAnswer() }
            return nil
        }
        return String(decoding: run.bytes, as: UTF8.self).split(separator: "\n").map { line in
            line.split(separator: "/", omittingEmptySubsequences: false)
                .map { $0.split(separator: " ").joined() }
        }
    }
}

extension LVMNames {
    /// The origin of each device that is a snapshot, as far as LVM can tell.
    package func origins(of entries: [InventoryEntry]) -> [VolumeName?] {
        let areVolumes = entries.contains { $0.volumeName != nil }
        let known = areVolumes ? volumes() ?? [] : []
        return entries.map { entry in
            guard let name = entry.volumeName else { return nil }
            return known.first { $0.identity == entry.volumeIdentity }?.origin
                .map { VolumeName(group: name.group, volume: $0) }
        }
    }

    /// Distinguishes devices with the same tag: `vg0/monday, a snapshot of vg0/root`, or the path.
    func names(of entries: [InventoryEntry]) -> [String] {
        zip(entries, origins(of: entries)).map { entry, origin in
            (entry.volumeName?.text ?? entry.path)
                + (origin.map { ", a snapshot of \($0.text)" } ?? "")
        }
    }
}
