// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import LogicalVolumes

/// Classic snapshots of a target.
///
/// Their stores keep what a write to the target overwrites. A snapshot whose store is full is lost,
/// without an error of the write.
extension TargetAdmission {
    /// A warning for each snapshot whose store is too small for all blocks of the target.
    func warningsOfOverflow(_ number: UInt64, _ host: HostState) -> [String] {
        host.classicSnapshots(of: number).compactMap { snapshot, store in
            guard store.size < SnapshotStore.fullSize(of: snapshot.size) else { return nil }
            let what = snapshot.volumeName?.text ?? snapshot.displayName
            return
                "\(name): its snapshot \(what) is lost if more than its \(store.size) bytes change"
        }
    }
}

extension HostState {
    /// The classic snapshots of a logical volume, each with the device of its store.
    ///
    /// An origin lies on a device whose UUID ends with `-real`. Its snapshots lie on the same
    /// device, and on one whose UUID ends with `-cow`; see `build_dm_uuid` of LVM.
    fileprivate func classicSnapshots(
        of number: UInt64
    ) -> [(snapshot: KernelDevice, store: KernelDevice)] {
        guard let origin = self[number], origin.volumeIdentity != nil,
            let real = origin.slaves.compactMap({ self[$0] }).first(where: {
                $0.mapperUUID?.hasSuffix("-real") == true
            })
        else { return [] }
        return real.holders.compactMap { name in
            guard let device = self[name], device.number != number, device.volumeIdentity != nil,
                let store = device.slaves.compactMap({ self[$0] }).first(where: {
                    $0.mapperUUID?.hasSuffix("-cow") == true
                })
            else { return nil }
            return (device, store)
        }
    }
}
