// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import LinuxIO

extension Entrance {
    /// The logical volume that a device is, where something is to be done to it as such.
    ///
    /// - Parameters:
    ///   - device: the claimed device.
    ///   - host: the machine.
    /// - Returns: the volume; `nil` where nobody has to know it.
    /// - Throws: a refusal where it would have to be a volume and is none.
    func targetVolume(
        _ device: BlockSpecialFile, _ host: HostState
    ) throws(ProbeError) -> (any TargetVolume)? {
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
        return try asProbeError { () throws(IOError) in
            try volumes.volume(at: view.devicePath(known.path))
        }
    }

    /// What is no logical volume has no snapshots.
    var refusalForSnapshot: ProbeError? {
        policy.snapshot == nil
            ? nil
            : refusal(.wrongKind, "it is no logical volume, so that no snapshot of it can be taken")
    }

    /// Whether the size that the rules have decided upon can be had.
    func checkResizing(
        _ volume: (any TargetVolume)?, to size: Int?
    ) throws(ProbeError) {
        guard let volume, let size,
            let no = volume.obstacle(toResizing: size, withSnapshot: policy.snapshot != nil)
        else { return }
        throw refusal(.size, no.reason, advice: no.advice)
    }

    /// Takes the snapshot that is wanted, as the last thing that the gate does.
    ///
    /// - Parameters:
    ///   - device: the claimed device, all of whose checks are passed.
    ///   - volume: the volume that it is.
    ///   - verdict: of the rules.
    /// - Returns: the target.
    /// - Throws: where no snapshot can be had.
    func target(
        _ device: consuming BlockSpecialFile, _ volume: any TargetVolume,
        _ verdict: TargetRules.Verdict
    ) throws(ProbeError) -> VolumeTarget {
        var made: VolumeTarget.Made? = newVolume == nil ? nil : .volume
        if let wish = policy.snapshot, newVolume == nil {
            let snapshot: String
            if let taken = wish.taken {
                snapshot = taken
            } else {
                snapshot = try volume.take(wish, as: name)
            }
            made = .snapshot(snapshot, wish)
        }
        return VolumeTarget(device, volume, replicaSize: verdict.zeroesTailFrom, made: made)
    }

    /// Makes the volume that is missing, and admits it.
    ///
    /// - Parameter place: where.
    /// - Returns: the target; in a dry run, what it would be.
    /// - Throws: where it cannot be made; no volume is left then.
    func admitNewVolume(_ place: VolumePlace) throws(ProbeError) -> AdmittedTarget {
        guard let volumes else {
            throw .failed(IOError(name, "create", reason: "logical volumes cannot be made here"))
        }
        guard !VolumePlace.isReserved(place.volume) else {
            throw .failed(
                IOError(
                    name, "create", reason: "LVM keeps names like \(place.volume) for itself"))
        }
        if policy.isDryRun {
            let size = try volumes.sizeOfNew(place, size: source.size, as: name)
            return AdmittedTarget(
                device: untouchable(nil, size: size), kind: .blockDevice, sizeBefore: 0,
                wasCreated: true, warnings: [], isRotational: false)
        }
        let volume = try volumes.create(place, size: source.size, as: name)
        var entrance = self
        entrance.path = volume.path
        entrance.newVolume = volume
        do throws(ProbeError) {
            var target = try entrance.admitDevice()
            target.sizeBefore = 0
            target.wasCreated = true
            return target
        } catch {
            // It is ours and empty: no trace of it shall stay.
            try? volume.remove()
            throw error
        }
    }
}
