// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

/// Classic snapshots of a target: what is written to the target is kept in their stores, and one
/// whose store is full is lost, without an error of the write.
extension Entrance {
    /// A warning for each snapshot that the run may make overflow.
    ///
    /// - Parameters:
    ///   - number: the target.
    ///   - host: the machine.
    /// - Returns: none where there is none, or all have room for every block of the target.
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
    /// An origin stands on a device whose UUID ends with `-real`, and so do its snapshots, which stand
    /// on one that ends with `-cow` as well; see `build_dm_uuid` of LVM.
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
