// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

extension LogicalVolume {
    /// Where a volume may differ from a snapshot that was made of its origin before.
    ///
    /// Both are thin volumes of one pool; or the base is a classic snapshot, and this one its origin,
    /// or another classic snapshot of that. Which of the two is the older one does not matter.
    ///
    /// Nor does it whether somebody has written to a snapshot itself: what was written to a thin one is
    /// elsewhere, and what was discarded may be told apart from what never was there only in a base
    /// that blkferry has made, read-only.
    ///
    /// - Parameters:
    ///   - base: the other one.
    ///   - mapper: how the device mapper is talked to.
    ///   - isOver: asked now and then.
    /// - Returns: the map of this volume; of writes that come while it is made it may lack some.
    /// - Throws: where there is no map that can be trusted.
    package func changes(
        since base: LogicalVolume, mapper: DeviceMapper = DeviceMapper(), unless isOver: () -> Bool
    ) throws(ChangeMapError) -> ChangeMap {
        guard base.groupUUID == groupUUID else {
            throw ChangeMapError(base.fullName, "\(fullName) is of another volume group")
        }
        let roots: Set<String?> = [uuid, originUUID]
        guard base.uuid != uuid, let baseOrigin = base.originUUID, roots.contains(baseOrigin) else {
            throw ChangeMapError(base.fullName, "it is no snapshot of \(origin ?? name)")
        }
        if base.isThin, isThin, let pool, pool == base.pool, let old = base.thinID, let new = thinID
        {
            return try ThinPool(group: group, pool: pool, mapper: mapper).delta(
                from: old, to: new, unless: isOver
            )
            .map(
                size: size, oldSize: base.size,
                isOldAsMade: base.isReadOnly && VolumeSnapshot.isOwn(base))
        }
        guard base.isClassicSnapshot, isClassicSnapshot || uuid == baseOrigin else {
            throw ChangeMapError(base.fullName, "it has nothing in common with \(fullName)")
        }
        return try classicChanges(since: base, mapper, unless: isOver)
    }

    /// Makes the map of a classic snapshot and its origin, or of two.
    ///
    /// A store tells where a snapshot differs from the origin as it is now. So two snapshots differ
    /// from each other at most where the one or the other has an entry.
    private func classicChanges(
        since base: LogicalVolume, _ mapper: DeviceMapper, unless isOver: () -> Bool
    ) throws(ChangeMapError) -> ChangeMap {
        let own: ChangeMap?
        if isClassicSnapshot {
            own = try CowDevice(group: group, snapshot: name, mapper: mapper)
                .map(size: size, unless: isOver)
        } else {
            // Who reads an origin that a snapshot is being merged into sees what will be there, but
            // the stores of others get it by and by.
            let device = DeviceMapper.name(group: group, volume: name)
            let table = try mapper.target("table", of: device, unless: isOver)
            guard table.type == "snapshot-origin" else {
                throw ChangeMapError(fullName, "its device is of type \(table.type)")
            }
            own = nil
        }
        let others = try CowDevice(group: group, snapshot: base.name, mapper: mapper)
            .map(size: size, unless: isOver)
        guard let own else { return others }
        return ChangeMap(own.ranges + others.ranges, size: size, oldSize: base.size)
    }
}
