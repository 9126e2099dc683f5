// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

extension LogicalVolume {
    /// Makes the map of where this volume may differ from a snapshot of the same origin.
    ///
    /// Both are thin volumes of one pool. Or the base is a classic snapshot, and this volume is its
    /// origin or another classic snapshot of that origin. Either may be the older one.
    ///
    /// Writes to a snapshot of the user's own do no harm. Blocks written to a thin snapshot are
    /// stored elsewhere and count as different. A range that neither volume maps may have been
    /// discarded in both, so it is in the map. The map leaves such a range out only if blkferry
    /// made the base read-only and the base is unchanged since, because the range was empty then.
    ///
    /// - Parameter mapped: bytes that the base had mapped when blkferry made it; `nil` if unknown.
    /// - Returns: the map of this volume. It may miss writes that happen during the call.
    /// - Throws: if no trustworthy map can be made.
    package func changes(
        since base: LogicalVolume, mappedThen mapped: Int? = nil,
        mapper: DeviceMapper = DeviceMapper(), unless isCancelled: () -> Bool
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
            let pool = ThinPool(group: group, pool: pool, mapper: mapper)
            guard VolumeSnapshot.isOwn(base), let mapped else {
                return try pool.delta(from: old, to: new, unless: isCancelled)
                    .map(size: size, oldSize: base.size, isOldAsMade: false)
            }
            let (delta, dump) = try pool.deltaAndOld(from: old, to: new, unless: isCancelled)
            guard base.isReadOnly, dump?.isUnchanged(since: mapped) ?? true else {
                throw ChangeMapError(
                    base.fullName, "another program has changed it since blkferry made it")
            }
            return delta.map(size: size, oldSize: base.size, isOldAsMade: dump != nil)
        }
        guard base.isClassicSnapshot, isClassicSnapshot || uuid == baseOrigin else {
            throw ChangeMapError(base.fullName, "it has nothing in common with \(fullName)")
        }
        return try classicChanges(since: base, mapper, unless: isCancelled)
    }

    /// Makes the map of a classic snapshot and its origin, or of two classic snapshots.
    ///
    /// A store lists where its snapshot differs from the current origin. Two snapshots therefore
    /// differ at most where either store has an entry.
    private func classicChanges(
        since base: LogicalVolume, _ mapper: DeviceMapper, unless isCancelled: () -> Bool
    ) throws(ChangeMapError) -> ChangeMap {
        let own: ChangeMap?
        if isClassicSnapshot {
            own = try CowDevice(group: group, snapshot: name, mapper: mapper)
                .map(size: size, unless: isCancelled)
        } else {
            // During a merge into the origin, reads of the origin already return the merged
            // content, but the stores of other snapshots receive it gradually.
            let table = try mapper.target("table", of: mapperName, unless: isCancelled)
            guard table.type == "snapshot-origin" else {
                throw ChangeMapError(fullName, "its device is of type \(table.type)")
            }
            own = nil
        }
        let others = try CowDevice(group: group, snapshot: base.name, mapper: mapper)
            .map(size: size, unless: isCancelled)
        guard let own else { return others }
        return ChangeMap(own.ranges + others.ranges, size: size, oldSize: base.size)
    }
}
