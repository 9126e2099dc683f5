// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import DeviceProbe
internal import Glibc
package import LinuxIO

/// A snapshot that this process has made of a logical volume, and removes when it is not needed any
/// more, or leaves as the base of the next run.
///
/// Tags tell whose it is, so that the next run finds what a killed one has left.
package final class VolumeSnapshot: Sendable {
    /// How large the store of a classic snapshot is to be.
    package enum Size: Hashable, Sendable {
        /// Of the origin.
        case percent(Int)
        case bytes(Int)

        /// What a classic snapshot has where nobody says otherwise.
        package static let usual = Size.percent(10)

        /// Bytes, in whole extents, at least one; for a store as large as a whole origin LVM itself
        /// knows what it needs at most.
        package func bytes(of origin: LogicalVolume) -> Int {
            let wanted =
                switch self {
                case .percent(let share): origin.size / 100 * share
                // More than twice the origin is never of use.
                case .bytes(let count): min(count, 2 * origin.size)
                }
            let extents = max(1, (wanted + origin.extentSize - 1) / origin.extentSize)
            return extents * origin.extentSize
        }
    }

    package let origin: LogicalVolume
    /// As it was when it was made.
    package let volume: LogicalVolume
    private let lvm: LVM

    /// Of every snapshot that blkferry makes of a source.
    private static let tag = "blkferry"
    /// In the name of each.
    private static let namePart = ".blkferry."
    private static let ownerTag = "blkferry.owner="
    /// What the tag starts with that tells of which volume it was taken: LVM forgets that when a
    /// snapshot is merged into the volume.
    private static let sourceTag = "blkferry.source="
    /// What the tag of a snapshot of a target starts with; those are the user's.
    static let targetTag = "blkferry.of="

    /// Takes a snapshot: a thin one of a thin volume, else a classic one.
    ///
    /// What is mounted is frozen for the moment, so that it is consistent.
    ///
    /// - Parameters:
    ///   - origin: of what.
    ///   - size: of the store of a classic one.
    ///   - lvm: does it.
    /// - Throws: what LVM says; nothing is left then.
    package init(
        of origin: LogicalVolume, size: Size = .usual, _ lvm: LVM
    ) throws(IOError) {
        let name = Self.name(for: origin)
        var arguments = [
            "--snapshot", "--name", name, "--permission", "r", "--setactivationskip", "n",
            "--addtag", Self.tag, "--addtag", Self.ownerTag + Self.identity(of: getpid()),
            "--addtag", Self.sourceTag + origin.uuid,
        ]
        if !origin.isThin { arguments += ["--size", "\(size.bytes(of: origin))b"] }
        // One that there is has to be found, watched and removed, whatever comes.
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
        do throws(IOError) { volume = try lvm.volume(fullName) } catch {
            try? lvm.change("lvremove", ["--force", fullName])
            throw error
        }
    }

    /// Tells when and by whom it was made: `root.blkferry.20261123T031500.1234`.
    private static func name(for origin: LogicalVolume) -> String {
        var (now, date) = (time(nil), tm())
        gmtime_r(&now, &date)
        var text = [CChar](repeating: 0, count: 32)
        strftime(&text, text.count, "%Y%m%dT%H%M%S", &date)
        let moment = String(decoding: text.prefix { $0 != 0 }.map { UInt8($0) }, as: UTF8.self)
        let suffix = "\(namePart)\(moment).\(getpid())"
        // The device mapper's names have 127 characters at most, with hyphens doubled and what LVM
        // adds to them, such as -cow.
        var room = 127 - "-".count - "-real".count - suffix.count
        room -= origin.group.reduce(0) { $0 + ($1 == "-" ? 2 : 1) }
        let prefix = origin.name.prefix { character in
            room -= character == "-" ? 2 : 1
            return room >= 0
        }
        return (prefix.isEmpty ? "s" : prefix) + suffix
    }

    /// As it is now.
    ///
    /// - Returns: the same volume.
    /// - Throws: what LVM says.
    package func status() throws(IOError) -> LogicalVolume { try lvm.volume(volume.fullName) }

    /// Gives the store of a classic one more room, of a group that has it.
    ///
    /// - Parameter bytes: to add, rounded up to extents.
    /// - Throws: what LVM says, such as that there is no room.
    package func extend(by bytes: Int) throws(IOError) {
        do throws(IOError) {
            try lvm.change("lvextend", ["--size", "+\(bytes)b", volume.fullName])
        } catch {
            throw IOError(volume.fullName, "extend the snapshot", reason: error.reason)
        }
    }

    /// Removes it; whoever has it open must have closed it.
    ///
    /// - Throws: what LVM says.
    package func remove() throws(IOError) { try Self.remove(volume, lvm) }

    private static func remove(_ volume: LogicalVolume, _ lvm: LVM) throws(IOError) {
        do throws(IOError) {
            try lvm.change("lvremove", ["--force", volume.fullName])
        } catch {
            throw IOError(
                volume.fullName, "remove the snapshot", reason: error.reason,
                advice: "Remove it when nobody has it open: lvremove \(volume.fullName)")
        }
    }

    /// Leaves it to the next run: it is nobody's leftover any more.
    ///
    /// - Parameter record: what it is good for.
    /// - Throws: what LVM says; it is as before then.
    package func keep(as record: ReplicaRecord) throws(IOError) {
        let owner = volume.tags.filter { $0.hasPrefix(Self.ownerTag) }
        try Self.retag(volume, adding: [record.tag], removing: owner, lvm)
    }

    /// Removes the snapshots of a volume that runs have left which do not live any more.
    ///
    /// - Parameters:
    ///   - origin: of what.
    ///   - lvm: does it.
    /// - Returns: the names of those that were removed, and why others were not, such as one that
    ///   somebody has open.
    /// - Throws: what LVM says.
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

    /// Every snapshot of a volume, whoever made it.
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
        let identity = owner.dropFirst(ownerTag.count)
        // boot.process.start
        let parts = identity.split(separator: ".")
        guard parts.count == 3, let process = Int32(parts[1]) else { return true }
        return Self.identity(of: process) != identity
    }

    /// A process among all that ever were on this machine: the boot, its id, and when it began in
    /// ticks since the boot (proc(5), stat, field 22).
    private static func identity(of process: Int32) -> String {
        let boot = readSmallFile("/proc/sys/kernel/random/boot_id") ?? "unknown"
        let status = readSmallFile("/proc/\(process)/stat") ?? ""
        // The name, which may hold anything, ends with the last parenthesis.
        let fields = status.split(separator: ")").last?.split(separator: " ") ?? []
        let start = fields.count > 19 ? String(fields[19]) : "none"
        return "\(boot).\(process).\(start)"
    }
}

// MARK: Bases

extension VolumeSnapshot {
    /// What the tag of a base that is none any more starts with; the target's name follows.
    private static let formerTag = "blkferry.former="

    /// The snapshots that runs have left as bases for a target, those that are none any more
    /// included.
    ///
    /// - Parameters:
    ///   - origin: of what.
    ///   - target: as in the records.
    ///   - lvm: tells.
    /// - Returns: the sound ones first, the newest of them first of all.
    /// - Throws: what LVM says.
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

    /// Whether a run has taken it of its source, and it still has the name that it got: tags may come
    /// to others, above all to the source, when a snapshot is merged or cloned.
    static func isOwn(_ volume: LogicalVolume) -> Bool {
        volume.tags.contains(tag) && isNameOfOwnSnapshot(volume.name)
            && !volume.tags.contains { $0.hasPrefix(targetTag) }
    }

    /// Takes back what snapshots say of a target, which is about to be written to.
    ///
    /// - Parameters:
    ///   - origin: every snapshot of it.
    ///   - target: as in the records.
    ///   - lvm: does it.
    /// - Throws: what LVM says.
    package static func invalidateRecords(
        of origin: LogicalVolume, for target: String, _ lvm: LVM
    ) throws(IOError) {
        for volume in try all(of: origin, lvm) {
            let records = volume.tags.filter { ReplicaRecord(tag: $0)?.target == target }
            guard !records.isEmpty else { continue }
            // A user's own snapshot is not ours to remove later.
            try retag(
                volume, adding: isOwn(volume) ? [formerTag + target] : [], removing: records, lvm)
        }
    }

    /// Writes down that a target is the exact replica of a snapshot of the user's own.
    ///
    /// - Parameters:
    ///   - record: that.
    ///   - volume: the snapshot.
    ///   - lvm: does it.
    /// - Throws: what LVM says.
    package static func add(
        _ record: ReplicaRecord, to volume: LogicalVolume, _ lvm: LVM
    ) throws(IOError) {
        try retag(volume, adding: [record.tag], removing: [], lvm)
    }

    /// Removes the snapshots that runs before have left as bases for a target.
    ///
    /// - Parameters:
    ///   - origin: of what.
    ///   - target: as in the records.
    ///   - kept: the UUID of one that stays.
    ///   - lvm: does it.
    /// - Returns: why some are still there, such as that somebody has them open.
    /// - Throws: what LVM says, where it cannot be told which there are.
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
