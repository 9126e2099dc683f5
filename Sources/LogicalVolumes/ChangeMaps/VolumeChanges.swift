// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices
package import LinuxIO

extension ChangeMap {
    /// What shows the changes of a volume since a snapshot.
    package enum Source: Hashable, Sendable {
        /// The mappings of both, by their ids in a thin pool.
        ///
        /// `mappedThen` has the bytes that the snapshot had mapped when blkferry made it. A map is
        /// made only if the snapshot is unchanged since. It is `nil` if they are unknown, or if the
        /// snapshot is the user's own.
        case thin(pool: String, old: Int, new: Int, mappedThen: Int?)
        /// The stores of classic snapshots.
        case classic
    }
}

extension LogicalVolume {
    /// Determines what shows the changes since a snapshot of the same origin; does no I/O.
    ///
    /// Both are thin volumes of one pool. Or the base is a classic snapshot, and this volume is its
    /// origin or another classic snapshot of that origin. Either may be the older one.
    ///
    /// - Parameter mapped: bytes that the base had mapped when blkferry made it; `nil` if unknown.
    /// - Throws: if nothing shows them.
    package func changeMapSource(
        since base: LogicalVolume, mappedThen mapped: Int? = nil
    ) throws(IOError) -> ChangeMap.Source {
        guard base.groupUUID == groupUUID else {
            throw .noChangeMap(base.fullName, "\(fullName) is of another volume group")
        }
        let roots: Set<String?> = [uuid, originUUID]
        guard base.uuid != uuid, let baseOrigin = base.originUUID, roots.contains(baseOrigin) else {
            throw .noChangeMap(base.fullName, "it is no snapshot of \(origin ?? name)")
        }
        if base.isThin, isThin, let pool, pool == base.pool, let old = base.thinID, let new = thinID
        {
            return .thin(
                pool: pool, old: old, new: new,
                mappedThen: VolumeSnapshot.isOwn(base) ? mapped : nil)
        }
        guard base.isClassicSnapshot, isClassicSnapshot || uuid == baseOrigin else {
            throw .noChangeMap(base.fullName, "it has nothing in common with \(fullName)")
        }
        return .classic
    }

    /// Makes the map of where this volume may differ from a snapshot of the same origin.
    ///
    /// Writes to a snapshot of the user's own do no harm. Blocks written to a thin snapshot are
    /// stored elsewhere and count as different. A range that neither volume maps may have been
    /// discarded in both, so it is in the map. The map leaves such a range out only if blkferry
    /// made the base read-only and the base is unchanged since, because the range was empty then.
    ///
    /// - Parameter mapSource: see `changeMapSource(since:mappedThen:)`.
    /// - Returns: the map of this volume. It may miss writes that happen during the call.
    /// - Throws: if no trustworthy map can be made.
    package func changes(
        since base: LogicalVolume, from mapSource: ChangeMap.Source,
        mapper: DeviceMapper = DeviceMapper(), programs: ThinPool.Programs = ThinPool.Programs(),
        unless isCancelled: () -> Bool
    ) throws(IOError) -> ChangeMap {
        guard case .thin(let pool, let old, let new, let mappedThen) = mapSource else {
            return try classicChanges(since: base, mapper, unless: isCancelled)
        }
        let thinPool = ThinPool(group: group, pool: pool, mapper: mapper, programs: programs)
        guard let mapped = mappedThen else {
            return try thinPool.delta(from: old, to: new, unless: isCancelled)
                .map(size: size, oldSize: base.size, isOldAsMade: false)
        }
        let (delta, dump) = try thinPool.deltaAndOld(from: old, to: new, unless: isCancelled)
        guard base.isReadOnly, dump?.isUnchanged(since: mapped) ?? true else {
            throw .noChangeMap(
                base.fullName, "another program has changed it since blkferry made it")
        }
        return delta.map(size: size, oldSize: base.size, isOldAsMade: dump != nil)
    }

    /// Makes the map of a classic snapshot and its origin, or of two classic snapshots.
    ///
    /// A store lists where its snapshot differs from the current origin. Two snapshots therefore
    /// differ at most where either store has an entry.
    private func classicChanges(
        since base: LogicalVolume, _ mapper: DeviceMapper, unless isCancelled: () -> Bool
    ) throws(IOError) -> ChangeMap {
        let own: ChangeMap?
        if isClassicSnapshot {
            own = try CowDevice(group: group, snapshot: name, mapper: mapper)
                .map(size: size, unless: isCancelled)
        } else {
            // During a merge into the origin, reads of the origin already return the merged
            // content, but the stores of other snapshots receive it gradually.
            let table = try mapper.target(.table, of: mapperName)
            guard table.type == "snapshot-origin" else {
                throw .noChangeMap(fullName, "its device is of type \(table.type)")
            }
            own = nil
        }
        let others = try CowDevice(group: group, snapshot: base.name, mapper: mapper)
            .map(size: size, unless: isCancelled)
        guard let own else { return others }
        return ChangeMap(own.ranges + others.ranges, size: size, oldSize: base.size)
    }
}
