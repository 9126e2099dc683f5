// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import LinuxIO
package import LogicalVolumes

extension KernelDevice {
    /// The identity of a logical volume; `nil` for other devices and for parts of volumes.
    var volumeIdentity: VolumeIdentity? { mapperUUID.flatMap { VolumeIdentity(mapperUUID: $0) } }

    var logicalVolumeUUID: String? { volumeIdentity?.uuid }

    var volumeName: VolumeName? {
        guard volumeIdentity != nil, let mapperName else { return nil }
        return VolumeName(mapperName: mapperName)
    }
}

extension HostState {
    /// Whether LVM uses a device below a volume, so that no user means it.
    ///
    /// The UUIDs of most such devices have a suffix; those of raid images have none.
    func isPartOfVolume(_ device: KernelDevice) -> Bool {
        if device.isPartOfLogicalVolume { return true }
        guard let name = device.volumeName, let group = device.volumeIdentity?.groupUUID,
            VolumePlace.isReserved(name.volume)
        else { return false }
        return device.holders.contains { self[$0]?.volumeIdentity?.groupUUID == group }
    }
}

/// The identity of the logical volume at a path; `nil` unless it is an active one.
package func volumeIdentity(at path: String, view: SystemView = SystemView()) -> VolumeIdentity? {
    guard let status = try? FileStatus(path: path), status.kind == .blockDevice else { return nil }
    return HostState(view)[status.device]?.volumeIdentity
}
