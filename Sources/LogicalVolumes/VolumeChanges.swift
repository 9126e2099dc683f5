// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

extension LogicalVolume {
    /// Where a volume may differ from a snapshot that was made of its origin before.
    ///
    /// Both are thin volumes of one pool; or the older one is a classic snapshot, and the newer one
    /// its origin, or another snapshot of that.
    ///
    /// - Parameters:
    ///   - base: the older one, which is still what it was when it was made, or was written to
    ///     itself.
    ///   - isOver: asked now and then.
    /// - Returns: the map of this volume; of writes that come while it is made it may lack some.
    /// - Throws: where there is no map that can be trusted.
    package func changes(
        since base: LogicalVolume, unless isOver: () -> Bool
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
            return try ThinPool(group: group, pool: pool).delta(from: old, to: new, unless: isOver)
                .map(size: size, oldSize: base.size)
        }
        guard base.isClassicSnapshot else {
            throw ChangeMapError(base.fullName, "it has nothing in common with \(fullName)")
        }
        return try CowDevice(group: group, snapshot: base.name).map(size: size, unless: isOver)
    }
}
