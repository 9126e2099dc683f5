// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import LinuxIO
internal import LogicalVolumes

extension TargetAdmission {
    /// The target's volume, if it must be resized or snapshotted; refuses a snapshot of another
    /// device.
    func targetVolume(
        _ device: BlockSpecialFile, _ host: HostState
    ) throws(IOError) -> (any ManagedVolume)? {
        if let newVolume { return newVolume }
        guard let known = host[device.number], known.logicalVolumeUUID != nil else {
            if let no = refusalForSnapshot { throw no }
            return nil
        }
        let mayResize = policy.sizePolicy == .resize || policy.sizePolicy == nil && policy.creates
        guard policy.snapshot != nil || mayResize && device.geometry.size != source.size else {
            return nil
        }
        guard let volumes else {
            if let no = refusalForSnapshot { throw no }
            return nil
        }
        return try volumes.volume(at: view.devicePath(known.path))
    }

    var refusalForSnapshot: IOError? {
        policy.snapshot == nil
            ? nil
            : refusal(.wrongKind, "it is no logical volume, so that no snapshot of it can be taken")
    }

    /// Refuses a size that the volume cannot get.
    func checkResizing(
        _ volume: (any ManagedVolume)?, to size: Int?
    ) throws(IOError) {
        guard let volume, let size,
            let no = volume.obstacle(toResizing: size, withSnapshot: policy.snapshot != nil)
        else { return }
        throw refusal(.size, no.reason, advice: no.advice)
    }

    /// Takes the wanted snapshot, as the last step of the gate: all checks of the device are
    /// passed.
    func target(
        _ device: consuming BlockSpecialFile, _ volume: any ManagedVolume,
        _ verdict: TargetRules.Verdict
    ) throws(IOError) -> VolumeDevice {
        var made: VolumeDevice.Made? = newVolume == nil ? nil : .volume
        if let wish = policy.snapshot, newVolume == nil {
            let snapshot: String
            if let taken = wish.taken {
                snapshot = taken
            } else {
                snapshot = try volume.take(wish, as: name)
            }
            made = .snapshot(snapshot, wish)
        }
        return VolumeDevice(device, volume, replicaSize: verdict.zeroesTailFrom, made: made)
    }

    /// Creates and admits the missing volume, or simulates that; after an error no volume is left.
    func admitNewVolume(_ place: VolumePlace) throws(IOError) -> AdmittedTarget {
        guard let volumes else {
            throw IOError(name, "create", reason: "logical volumes cannot be made here")
        }
        guard !VolumePlace.isReserved(place.volume) else {
            throw IOError(
                name, "create", reason: "LVM keeps names like \(place.volume) for itself")
        }
        if let no = rules.refusalOfPacking(name) { throw no }
        if policy.isDryRun {
            let size = try volumes.sizeOfNew(place, size: source.size, as: name)
            return AdmittedTarget(
                device: untouchable(nil, size: size), kind: .blockDevice, sizeBefore: 0,
                wasCreated: true, warnings: [], isRotational: false)
        }
        let volume = try volumes.create(place, size: source.size, as: name)
        var admission = self
        admission.path = volume.path
        admission.newVolume = volume
        do throws(IOError) {
            var target = try admission.admitDevice()
            target.sizeBefore = 0
            target.wasCreated = true
            return target
        } catch {
            // This run has created it and it is empty, so it is removed.
            try? volume.remove()
            throw error
        }
    }
}
