// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
package import LogicalVolumes

extension LVM {
    /// LVM for questions about names; `nil` if it cannot be asked: without root or without its
    /// program.
    package init?(in view: SystemView, patience: Duration = .seconds(10)) {
        guard geteuid() == 0, let lvm = try? LVM(program: view.lvm, patience: patience) else {
            return nil
        }
        self = lvm
    }
}

extension SystemView {
    /// The origin of each device that is a snapshot, as far as LVM can tell.
    package func origins(of entries: [InventoryEntry]) -> [VolumeName?] {
        let areVolumes = entries.contains { $0.volumeIdentity != nil }
        let origins = areVolumes ? (try? LVM(in: self)?.origins()) ?? [:] : [:]
        return entries.map { entry in entry.volumeIdentity.flatMap { origins[$0] } }
    }

    /// Distinguishes devices with the same tag: `vg0/monday, a snapshot of vg0/root`, or the path.
    func names(of entries: [InventoryEntry]) -> [String] {
        zip(entries, origins(of: entries)).map { entry, origin in
            (entry.volumeName?.text ?? entry.path)
                + (origin.map { ", a snapshot of \($0.text)" } ?? "")
        }
    }
}
