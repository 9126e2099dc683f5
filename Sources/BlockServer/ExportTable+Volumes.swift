// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import DeviceProbe
internal import WireProtocol

/// Logical volumes: exported by their group, and made where they are missing.
extension ExportTable {
    /// A volume of an exported group, or one whose own export lets it be made.
    ///
    /// - Parameters:
    ///   - path: `/dev/group/volume`; also with `@pool`, for one that is to be made.
    ///   - export: of a group, or of a volume.
    ///   - canCreate: whether one that is not there may be meant.
    /// - Returns: the volume, or its place; `nil` where it is not of this export.
    /// - Throws: when the machine's devices cannot be seen.
    func volume(
        _ path: String, in export: ExportSelector, canCreate: Bool
    ) throws(Problem) -> Found? {
        guard path.hasPrefix("/dev/"), let place = VolumePlace(path),
            !VolumePlace.isReserved(place.volume)
        else { return nil }
        let only = export.group == nil ? VolumePlace(export.text) : nil
        let isExported = export.group.map { $0 == place.group } ?? (only?.name == place.name)
        guard isExported else { return nil }
        let known = try devicesOfMachine().first {
            $0.volume.map { $0.group == place.group && $0.name == place.volume } ?? false
        }
        if let known { return Found(known, as: place, in: export) }
        guard canCreate else { return nil }
        // Where the export names a pool, it is made there and nowhere else.
        if let pool = only?.pool, place.pool ?? pool != pool { return nil }
        let pool = place.pool ?? only?.pool
        return Found(
            id: Self.nameBasedID(place.selector), name: place.selector,
            path: place.selector + (pool.map { "@\($0)" } ?? ""),
            access: export.access, description: nil, canCreateVolume: export.canCreate,
            isMissingVolume: true)
    }

    /// The most stable name of what a session has: a volume that was made for it has one of its own.
    func id(of found: Found, _ opened: Opened, _ grant: Grant) -> String {
        guard found.isMissingVolume, opened.wasCreated == true,
            let made = try? find(found.name, for: grant)
        else { return found.id }
        return made.id
    }
}

extension ExportTable.Found {
    /// A volume of an exported group; `nil` for what is none.
    init?(_ description: DeviceDescription, in export: ExportSelector) {
        guard let volume = description.volume, volume.group == export.group,
            !VolumePlace.isReserved(volume.name),
            let place = VolumePlace("/dev/\(volume.group)/\(volume.name)")
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

    /// Makes sure that a volume that is missing may be made, and is wanted, and that a snapshot may
    /// be taken: it takes room, and older ones may go for it.
    ///
    /// - Throws: 404 where nobody asked for the volume; 403.
    func checkCreation(_ request: SessionRequest) throws(Problem) {
        if isMissingVolume {
            guard request.create == true else { throw ExportTable.notFound(name) }
            guard canCreateVolume else {
                throw forbidden("there is no such volume, and the server lets none be made")
            }
        } else if request.snapshot != nil, description?.volume != nil, !canCreateVolume {
            throw forbidden("the server lets no snapshot of it be taken")
        }
    }

    private func forbidden(_ detail: String) -> Problem {
        var problem = Problem(
            .access, status: 403, "The export lets nothing be made", detail: detail)
        problem.object = name
        problem.advice =
            "The server's --export GROUP:rw,create allows it; over ssh a path or LVUUID= does."
        return problem
    }

    /// What of a client's policy is allowed here: what may not be made is only used as if it had
    /// been.
    func limit(_ policy: GatePolicy) -> GatePolicy {
        var policy = policy
        if policy.creates && !canCreateVolume {
            policy.creates = false
            policy.sizePolicy = policy.sizePolicy ?? .resize
        }
        return policy
    }
}
