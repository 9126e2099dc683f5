// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import LinuxIO

/// The UUIDs of a logical volume and its volume group, without hyphens.
package struct VolumeUUID: Hashable {
    package var group: String
    package var volume: String

    /// Parses LVM's device-mapper UUID, which is `LVM-` and twice 32 characters; `nil` for others.
    ///
    /// Parts of a logical volume have a suffix: `-real`, `-cow`, `-tpool`. Source: LVM's
    /// `build_dm_uuid`.
    package init?(mapper uuid: String) {
        guard uuid.hasPrefix("LVM-"), uuid.utf8.count == 4 + 2 * Self.length else { return nil }
        let both = uuid.dropFirst(4)
        group = String(both.prefix(Self.length))
        volume = String(both.dropFirst(Self.length))
    }

    init(group: String, volume: String) {
        self.group = group
        self.volume = volume
    }

    private static let length = 32
}

extension CounterReader {
    /// Reads the counts of the volume, its tables, the sysfs links below it, and the group's
    /// metadata version.
    ///
    /// The kernel makes new links when a table moves to other devices, as for a classic snapshot,
    /// its merge, or pvmove. The version shows extents that the volume gave away and got back.
    func volumeCounter(of device: SystemDevice) throws(NoChangeCounter) -> ChangeCounter {
        let uuid = device.attribute("dm/uuid") ?? ""
        guard let identity = VolumeUUID(mapper: uuid) else {
            throw NoChangeCounter(
                uuid.hasPrefix("LVM-")
                    ? "it is a part of a logical volume"
                    : "it is a device of the device mapper that is no logical volume")
        }
        var walk = Walk(group: identity.group)
        walk.marks = try counts(of: device).marks
        let table = try self.table(of: device)
        try add(device, table, to: &walk)
        if table.targets.contains(where: { $0.type == "snapshot-origin" }) {
            let real = walk.layers.first { $0.attribute("dm/uuid") == "\(uuid)-real" }
            guard let real else { throw NoChangeCounter("its blocks are not found in sysfs") }
            walk.marks += try counts(of: real).marks
        }
        guard walk.isAllocated else { return ChangeCounter(walk.marks) }
        guard let versions = versions(identity, walk.disks) else {
            throw NoChangeCounter("the metadata of its volume group cannot be read")
        }
        return ChangeCounter(walk.marks + [versions.upperBound], since: versions.lowerBound)
    }

    private struct Walk {
        let group: String
        var marks: [Int] = []
        /// The device-mapper devices of the volume, including itself.
        var layers: [SystemDevice] = []
        /// The physical volumes.
        var disks: [SystemDevice] = []
        /// Whether the volume has its own extents; those of a thin volume belong to its pool.
        var isAllocated = false
    }

    private func table(of device: SystemDevice) throws(NoChangeCounter) -> MapperTable {
        guard let number = device.number, let table = table(number) else {
            throw NoChangeCounter("the table of \(device.name) cannot be read")
        }
        return table
    }

    private func add(
        _ layer: SystemDevice, _ table: MapperTable, to walk: inout Walk
    ) throws(NoChangeCounter) {
        walk.layers.append(layer)
        guard walk.layers.count <= Self.maximumLayers else {
            throw NoChangeCounter("it consists of too many devices")
        }
        for target in table.targets { try require(target) }
        walk.marks.append(table.fingerprint)
        guard let slaves = layer.slaves, !slaves.isEmpty else {
            throw NoChangeCounter("sysfs does not show the devices below \(layer.name)")
        }
        let isThin = table.targets.contains { $0.type == "thin" }
        for slave in slaves {
            walk.marks.append(slave.link)
            let device = slave.device
            if isThin {
                // A pool may change its devices, because the place of a block does not matter.
                try requirePrivate(device, in: walk.group)
            } else if try isOfGroup(device, walk.group) {
                try add(device, self.table(of: device), to: &walk)
            } else {
                walk.isAllocated = true
                try requirePrivate(device, in: walk.group)
                walk.disks.append(device)
            }
        }
    }

    /// More than any volume has.
    private static let maximumLayers = 1000

    /// Throws unless the changes of such a target are visible.
    private func require(_ target: MapperTable.Target) throws(NoChangeCounter) {
        let words = target.words
        let isKnown =
            switch target.type {
            case "thin": words.count == 2
            case "raid": words.first.map { CountedKind.raidLevels.contains(String($0)) } ?? false
            default: CountedKind.volumeTargets.contains(target.type)
            }
        guard isKnown else {
            let type = target.type == "raid" ? String(words.first ?? "raid") : target.type
            let kind = target.type == "thin" ? "thin with an external origin" : type
            throw NoChangeCounter("it is a logical volume of type \(kind)")
        }
    }

    /// Throws if a device belongs to another group, whose volumes may get other content below this
    /// one.
    private func isOfGroup(
        _ device: SystemDevice, _ group: String
    ) throws(NoChangeCounter) -> Bool {
        guard let uuid = device.attribute("dm/uuid"), uuid.hasPrefix("LVM-") else { return false }
        guard uuid.dropFirst(4).hasPrefix(group) else {
            throw NoChangeCounter("its volume group is on a logical volume of another group")
        }
        return true
    }

    /// Throws if another machine can write to a device, or if a snapshot can be restored below it.
    private func requirePrivate(
        _ device: SystemDevice, in group: String, depth: Int = 0
    ) throws(NoChangeCounter) {
        guard depth < 16 else { throw NoChangeCounter("too many layers of devices are below it") }
        let disk = device.disk ?? device
        let isArray = disk.attribute("md/level") != nil
        if disk.attribute("dm/name") != nil {
            let uuid = disk.attribute("dm/uuid") ?? ""
            let isOwn = try isOfGroup(disk, group)
            guard isOwn || uuid.hasPrefix("CRYPT-") else {
                throw NoChangeCounter(
                    "\(disk.name) below it is of a kind that may change by itself")
            }
        } else if !isArray {
            do throws(NoChangeCounter) { return try requireDisk(disk) } catch {
                throw NoChangeCounter("\(disk.name) below it has none: \(error.reason)")
            }
        }
        guard let slaves = disk.slaves, !slaves.isEmpty else {
            throw NoChangeCounter("sysfs does not show the devices below \(disk.name)")
        }
        for slave in slaves { try requirePrivate(slave.device, in: group, depth: depth + 1) }
    }
}
