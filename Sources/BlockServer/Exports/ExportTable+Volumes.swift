// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import DeviceProbe
internal import LinuxIO
internal import LogicalVolumes
internal import WireProtocol

/// Logical volumes: exported by their group, and created on request.
extension ExportTable {
    /// A volume of an exported group, or the volume of an export that allows its creation.
    ///
    /// - Parameter path: `/dev/group/volume`, or `/dev/group/volume@pool` for a volume to create.
    /// - Throws: 503 if the machine's devices cannot be listed.
    func volume(
        _ path: String, in export: ExportSelector, canCreate: Bool, for grant: Grant,
        _ survey: DeviceSurvey
    ) throws(Problem) -> Found? {
        guard path.hasPrefix("/dev/"), let place = VolumePlace(path),
            !VolumePlace.isReserved(place.volume)
        else { return nil }
        let only = export.group == nil ? VolumePlace(export.text) : nil
        let isExported = export.group.map { $0 == place.group } ?? (only?.name == place.name)
        guard isExported else { return nil }
        let number = try Self.asProblem { () throws(IOError) in
            try survey.number(of: VolumeName(group: place.group, volume: place.volume))
        }
        guard grant.maySee(place.selector, number: number) else { return nil }
        if let number {
            let known = try Self.asProblem { () throws(IOError) in
                try survey.describe(device: number)
            }
            if let known, known.entry.hasNode { return Found(known, as: place, in: export) }
        }
        guard canCreate else { return nil }
        // If the export names a pool, the volume is created in that pool only.
        if let pool = only?.pool, place.pool ?? pool != pool { return nil }
        let pool = place.pool ?? only?.pool
        return Found(
            id: Self.nameBasedID(place.selector), name: place.selector,
            path: place.selector + (pool.map { "@\($0)" } ?? ""),
            access: export.access, description: nil, canCreateVolume: export.canCreate,
            isMissingVolume: true)
    }

    /// Whether LVM reports a device as a snapshot of another volume; 503 if LVM does not answer.
    func isSnapshot(_ found: Found) throws(Problem) -> Bool {
        guard let identity = found.description?.entry.volumeIdentity else { return false }
        guard let origins = try? LVM(in: view)?.origins() else {
            throw Problem(
                .busy, status: 503, "LVM cannot be asked",
                detail: "LVM does not say whether the target is a snapshot")
        }
        return origins[identity] != nil
    }

    /// The most stable name of a session's device; a created volume has its own.
    func id(of found: Found, _ opened: SessionDevice, _ grant: Grant) -> String {
        guard found.isMissingVolume, opened.wasCreated == true,
            let made = try? find(found.name, for: grant)
        else { return found.id }
        return made.id
    }
}

extension ExportTable.Found {
    init?(_ description: DeviceDescription, in export: ExportSelector) {
        guard let name = description.entry.volumeName, name.group == export.group,
            !VolumePlace.isReserved(name.volume), let place = VolumePlace("/dev/\(name.text)")
        else { return nil }
        self.init(description, as: place, in: export)
    }

    fileprivate init(
        _ description: DeviceDescription, as place: VolumePlace, in export: ExportSelector
    ) {
        self.init(
            id: description.stableTag ?? ExportTable.nameBasedID(place.selector),
            name: place.selector, path: description.entry.path, access: export.access,
            description: description, canCreateVolume: export.canCreate)
    }

    /// Checks that a missing volume may and should be created, and that a snapshot may be taken.
    ///
    /// A snapshot takes room, and older ones may be removed for it.
    func checkCreation(_ request: SessionRequest) throws(Problem) {
        if isMissingVolume {
            guard request.create == true else { throw ExportTable.notFound(name) }
            guard canCreateVolume else {
                throw forbidden(
                    "there is no such volume, and the export does not allow creating it")
            }
        } else if request.snapshot != nil, description?.entry.volumeName != nil,
            !canCreateVolume
        {
            throw forbidden("the export does not allow taking a snapshot")
        }
    }

    private func forbidden(_ detail: String) -> Problem {
        Problem(
            .access, status: 403, "The export does not allow creation", detail: detail,
            object: name,
            advice:
                "The server's --export GROUP:rw,create allows it; over ssh a path or LVUUID= does."
        )
    }

    /// Limits a client's policy: without the right to create, it only resizes an existing volume.
    func limit(_ policy: GatePolicy) -> GatePolicy {
        var policy = policy
        if policy.creates && !canCreateVolume {
            policy.creates = false
            policy.sizePolicy = policy.sizePolicy ?? .resize
        }
        return policy
    }
}
