// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices
internal import Glibc
package import LinuxIO

/// A snapshot that this process made of a logical volume, and removes or leaves as the base of the
/// next run.
///
/// Its tags name the process, so that the next run finds the snapshots of a killed one.
package final class VolumeSnapshot: Sendable {
    /// The size of a classic snapshot's store.
    package enum Size: Hashable, Sendable {
        /// Percent of the origin's size.
        case percent(Int)
        case bytes(Int)

        package static let usual = Size.percent(10)

        /// Returns the bytes in whole extents, at least one; LVM itself limits a store to what the
        /// origin can need at most.
        package func bytes(of origin: LogicalVolume) -> Int {
            let wanted =
                switch self {
                case .percent(let share): origin.size / 100 * share
                // A store never needs more than twice the origin's size.
                case .bytes(let count): count / 2 < origin.size ? count : 2 * origin.size
                }
            return max(1, wanted).roundedUp(to: origin.extentSize)
        }
    }

    package let origin: LogicalVolume
    /// The snapshot's state when it was made.
    package let volume: LogicalVolume
    private let lvm: LVM

    /// The tag of every snapshot that blkferry makes of a source.
    private static let tag = "blkferry"
    /// A part of the name of every such snapshot.
    private static let namePart = ".blkferry."
    private static let ownerTag = "blkferry.owner="
    /// The prefix of the tag that names the origin; LVM forgets the origin when a snapshot is
    /// merged into it.
    private static let sourceTag = "blkferry.source="
    /// The prefix of the tag of a target's snapshots, which belong to the user.
    package static let targetTag = "blkferry.of="

    /// Takes a thin snapshot of a thin volume, or a classic snapshot of any other volume.
    ///
    /// LVM freezes a mounted file system for the moment, so that the snapshot is consistent. If
    /// this throws, no snapshot is left.
    package init(
        of origin: LogicalVolume, size: Size = .usual, _ lvm: LVM,
        mapper: DeviceMapper = DeviceMapper()
    ) throws(IOError) {
        let name = Self.name(for: origin)
        var arguments = [
            "--snapshot", "--name", name, "--permission", "r", "--setactivationskip", "n",
            "--addtag", Self.tag, "--addtag", Self.ownerTag + processIdentity(of: getpid()),
            "--addtag", Self.sourceTag + origin.uuid,
        ]
        if !origin.isThin { arguments += ["--size", "\(size.bytes(of: origin))b"] }
        // An existing snapshot must be found, watched and removed even after the run was cancelled.
        let lvm = lvm.uninterrupted
        do throws(IOError) {
            try lvm.change("lvcreate", arguments + [origin.fullName])
        } catch {
            throw IOError(
                origin.fullName, "take a snapshot", reason: error.reason,
                advice: origin.isThin
                    ? nil : "\(origin.group) has \(origin.groupFree) bytes that are free.")
        }
        self.origin = origin
        self.lvm = lvm
        let fullName = "\(origin.group)/\(name)"
        do throws(IOError) {
            var volume = try lvm.volume(fullName)
            if volume.isThin {
                volume.mappedWhenMade = mapper.mappedBytes(of: volume.mapperName)
            }
            self.volume = volume
        } catch {
            try? lvm.change("lvremove", ["--force", fullName])
            throw error
        }
    }

    /// Builds a name with time and process, such as `root.blkferry.20261123T031500.1234`.
    private static func name(for origin: LogicalVolume) -> String {
        var (now, date) = (time(nil), tm())
        gmtime_r(&now, &date)
        var text = [CChar](repeating: 0, count: 32)
        strftime(&text, text.count, "%Y%m%dT%H%M%S", &date)
        let moment = String(decoding: text.prefix { $0 != 0 }.map { UInt8($0) }, as: UTF8.self)
        let suffix = "\(namePart)\(moment).\(getpid())"
        var prefix = origin.name
        func mapperName() -> String {
            VolumeName(group: origin.group, volume: prefix + suffix).mapperName
        }
        // A device mapper name has at most 127 characters, including suffixes of LVM such as -real.
        while !prefix.isEmpty, mapperName().count > 127 - "-real".count { prefix.removeLast() }
        return (prefix.isEmpty ? "s" : prefix) + suffix
    }

    package func status() throws(IOError) -> LogicalVolume { try lvm.volume(volume.fullName) }

    /// Extends the store of a classic snapshot; LVM rounds the bytes up to extents.
    package func extend(by bytes: Int) throws(IOError) {
        do throws(IOError) {
            try lvm.change("lvextend", ["--size", "+\(bytes)b", volume.fullName])
        } catch {
            throw IOError(volume.fullName, "extend the snapshot", reason: error.reason)
        }
    }

    /// Removes the snapshot, which must not be open.
    package func remove() throws(IOError) { try Self.remove(volume, lvm) }

    private static func remove(_ volume: LogicalVolume, _ lvm: LVM) throws(IOError) {
        do throws(IOError) {
            try lvm.change("lvremove", ["--force", volume.fullName])
        } catch {
            throw IOError(
                volume.fullName, "remove the snapshot", reason: error.reason,
                advice: "Remove it when no program has it open: lvremove \(volume.fullName)")
        }
    }

    /// Leaves the snapshot to the next run, without its owner's tag; unchanged if LVM fails.
    package func keep(as record: ReplicaRecord) throws(IOError) {
        let owner = volume.tags.filter { $0.hasPrefix(Self.ownerTag) }
        try Self.retag(volume, adding: [record.tag], removing: owner, lvm)
    }

    /// Removes the snapshots of a volume whose processes ended without removing them.
    ///
    /// - Returns: the names of the removed ones, and the errors of the others, such as an open one.
    package static func removeLeftovers(
        of origin: LogicalVolume, _ lvm: LVM
    ) throws(IOError) -> (removed: [String], failures: [IOError]) {
        try removeEach(of: all(of: origin, lvm).filter { isLeftover($0) }, lvm)
    }

    private static func removeEach(
        of volumes: [LogicalVolume], _ lvm: LVM
    ) -> (removed: [String], failures: [IOError]) {
        var result: (removed: [String], failures: [IOError]) = ([], [])
        for volume in volumes {
            do throws(IOError) {
                try remove(volume, lvm)
                result.removed.append(volume.fullName)
            } catch {
                result.failures.append(error)
            }
        }
        return result
    }

    /// Lists every snapshot of a volume, including those that other programs made.
    private static func all(
        of origin: LogicalVolume, _ lvm: LVM
    ) throws(IOError) -> [LogicalVolume] {
        try lvm.volumes(origin.group).filter {
            $0.originUUID == origin.uuid
                || $0.uuid != origin.uuid && isOwn($0) && $0.tags.contains(sourceTag + origin.uuid)
        }
    }

    private static func isLeftover(_ volume: LogicalVolume) -> Bool {
        guard isOwn(volume),
            let owner = volume.tags.first(where: { $0.hasPrefix(ownerTag) })
        else { return false }
        return !isRunning(owner.dropFirst(ownerTag.count))
    }
}

// MARK: Bases

extension VolumeSnapshot {
    /// The prefix of the tag of a former base; the target's name follows.
    private static let formerTag = "blkferry.former="

    /// Lists the snapshots that runs left as bases for a target, including former bases.
    ///
    /// Valid bases come first, the newest of them first of all.
    package static func bases(
        of origin: LogicalVolume, for target: String, _ lvm: LVM
    ) throws(IOError) -> [LogicalVolume] {
        let own = try all(of: origin, lvm).filter { volume in
            isOwn(volume)
                && volume.tags.contains { tag in
                    tag == formerTag + target || ReplicaRecord(tag: tag)?.target == target
                }
        }
        func number(_ volume: LogicalVolume) -> Int { volume.replica(on: target)?.number ?? -1 }
        return own.sorted { number($0) > number($1) }
    }

    /// Returns whether a run took this snapshot of its source and the name is unchanged.
    ///
    /// Tags alone do not prove it, because a merge or a clone copies them to other volumes, above
    /// all to the source.
    static func isOwn(_ volume: LogicalVolume) -> Bool {
        volume.tags.contains(tag) && isNameOfOwnSnapshot(volume.name)
            && !volume.tags.contains { $0.hasPrefix(targetTag) }
    }

    /// Removes the records of a target from every snapshot of a volume, before a run writes to the
    /// target.
    package static func invalidateRecords(
        of origin: LogicalVolume, for target: String, _ lvm: LVM
    ) throws(IOError) {
        for volume in try all(of: origin, lvm) {
            let records = volume.tags.filter { ReplicaRecord(tag: $0)?.target == target }
            guard !records.isEmpty else { continue }
            // A later run must not remove a snapshot of the user's own.
            try retag(
                volume, adding: isOwn(volume) ? [formerTag + target] : [], removing: records, lvm)
        }
    }

    /// Records that a target is the exact replica of a snapshot of the user's own.
    package static func add(
        _ record: ReplicaRecord, to volume: LogicalVolume, _ lvm: LVM
    ) throws(IOError) {
        try retag(volume, adding: [record.tag], removing: [], lvm)
    }

    /// Removes the snapshots that earlier runs left as bases for a target.
    ///
    /// - Parameter kept: the UUID of a snapshot that stays.
    /// - Returns: the errors of the snapshots that stay, such as one that is open.
    /// - Throws: if LVM cannot list them.
    package static func removeBases(
        of origin: LogicalVolume, for target: String, besides kept: String, _ lvm: LVM
    ) throws(IOError) -> [IOError] {
        try removeEach(of: bases(of: origin, for: target, lvm).filter { $0.uuid != kept }, lvm)
            .failures
    }

    /// Changes the tags of a volume in one transaction of its group's metadata.
    fileprivate static func retag(
        _ volume: LogicalVolume, adding: [String], removing: [String], _ lvm: LVM
    ) throws(IOError) {
        let changes =
            removing.flatMap { ["--deltag", $0] } + adding.flatMap { ["--addtag", $0] }
        do throws(IOError) {
            try lvm.change("lvchange", changes + [volume.fullName])
        } catch {
            throw IOError(volume.fullName, "change its tags", reason: error.reason)
        }
    }
}
