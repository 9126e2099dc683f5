// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import Glibc
internal import LinuxIO
internal import LogicalVolumes

/// A logical volume of this machine as a target.
struct LVMVolume: ManagedVolume {
    private let volume: LogicalVolume
    private let lvm: LVM

    init(_ volume: LogicalVolume, _ lvm: LVM) {
        self.volume = volume
        self.lvm = lvm
    }

    var name: String { volume.fullName }
    var path: String { volume.path }
    var size: Int { volume.size }
    /// LVM also reports the mirrors of a volume as stripes (`data_stripes`), but each mirror has
    /// all the data.
    var sizeUnit: Int {
        let isMirror = ["raid1", "mirror"].contains(volume.segmentType)
        guard !isMirror else { return volume.extentSize }
        let (unit, isTooMuch) = volume.extentSize.multipliedReportingOverflow(by: volume.stripes)
        return isTooMuch ? volume.extentSize : unit
    }

    func obstacle(
        toResizing size: Int, withSnapshot: Bool
    ) -> (reason: String, advice: String?)? {
        if volume.isClassicSnapshot {
            return ("it is a classic snapshot, which has the size of its origin", nil)
        }
        // `lv_attr` starts with `o` for an origin of classic snapshots. LVM does not resize it
        // while it is active. See lvs(8).
        if volume.attributes.hasPrefix("o") || volume.attributes.hasPrefix("O") {
            return (
                "it would have to be resized, which LVM refuses as long as it has snapshots",
                "Remove or merge its snapshots first: lvs --options +origin \(volume.group)"
            )
        }
        if withSnapshot && !volume.isThin {
            return (
                "it would have to be resized, which LVM refuses once it has a snapshot",
                "Sync once without --snapshot-target."
            )
        }
        let more = size - volume.size
        if volume.segmentType == "linear" && more > volume.groupFree {
            let refusal = IOError.noRoom(
                for: more, in: volume.group, free: volume.groupFree, volume.fullName)
            return (refusal.reason, refusal.advice)
        }
        return nil
    }

    func resize(to size: Int) throws(IOError) {
        do throws(IOError) {
            guard size < volume.size else {
                return try lvm.change("lvextend", ["--size", "\(size)b", name])
            }
            // Newer versions look for a file system, and may refuse to cut into it.
            let arguments = ["--force", "--size", "\(size)b", name]
            do throws(IOError) {
                try lvm.change("lvreduce", ["--fs", "ignore"] + arguments)
            } catch {
                // Older versions do not know `--fs`.
                try lvm.change("lvreduce", arguments)
            }
        } catch {
            throw IOError(name, "resize to \(size) bytes", reason: error.reason)
        }
    }

    func remove() throws(IOError) { try lvm.change("lvremove", ["--force", name]) }

    func removeSnapshot(_ snapshot: String) throws(IOError) {
        try lvm.change("lvremove", ["--force", snapshot])
    }
}

extension LVMVolume {
    func take(
        _ snapshot: TargetSnapshot, as name: String
    ) throws(IOError) -> String {
        let tags = ["blkferry", ownTag] + (snapshot.keeps == nil ? [] : [Self.tag(of: snapshot)])
        var arguments = tags.flatMap { ["--addtag", $0] }
        let others = try lvm.volumes(volume.group)
        let names = Self.names(for: snapshot).filter { name in
            !others.contains { $0.name == name }
        }
        guard !names.isEmpty else { throw Self.nameTaken(snapshot, in: volume.group, name) }
        let spare = dated(snapshot, in: others).first
        if !volume.isThin {
            guard storeSize <= volume.groupFree else {
                throw .noRoom(
                    for: storeSize, in: volume.group, free: volume.groupFree, name,
                    spare: spare)
            }
            arguments += ["--chunksize", "\(SnapshotStore.chunk)b", "--size", "\(storeSize)b"]
        }
        for newName in names {
            do throws(IOError) {
                try lvm.change(
                    "lvcreate",
                    ["--snapshot", "--name", newName] + arguments + [volume.fullName])
                return "\(volume.group)/\(newName)"
            } catch {
                // Another process has just created that name.
                if Self.isNameTaken(error) { continue }
                throw explanation(of: error, name, spare: spare)
            }
        }
        throw Self.nameTaken(snapshot, in: volume.group, name)
    }

    /// Lists the possible names of a snapshot; a dated snapshot takes a later second if the first
    /// is taken, since several targets of a group may be written at once.
    private static func names(for snapshot: TargetSnapshot) -> [String] {
        guard snapshot.keeps != nil else { return [snapshot.name] }
        let now = time(nil)
        return (0..<60).map { "\(snapshot.name)-\(text(of: now + $0))" }
    }

    private static func nameTaken(
        _ snapshot: TargetSnapshot, in group: String, _ name: String
    ) -> IOError {
        let fullName = "\(group)/\(snapshot.name)"
        guard snapshot.keeps == nil else {
            return .refusal(
                .nameTaken, name, "all names like \(fullName) of this minute are taken",
                advice: "Run it again later, or choose another name.")
        }
        return .refusal(
            .nameTaken, name, "\(fullName), which is to be its snapshot, is there already",
            advice: "Remove it, lvremove \(fullName), or choose another name.")
    }

    private static func isNameTaken(_ error: IOError) -> Bool {
        let reason = error.reason.lowercased()
        return ["already exists in volume group", "name already in use"].contains {
            reason.contains($0)
        }
    }

    /// Explains why LVM took no snapshot, with a refusal if the pool is full.
    ///
    /// blkferry cannot check the pool's room in advance, because LVM compares it with thresholds of
    /// lvm.conf(5).
    private func explanation(
        of error: IOError, _ name: String, spare: String?
    ) -> IOError {
        guard volume.isThin, error.reason.contains("reached threshold") else {
            return IOError(name, "take a snapshot", reason: error.reason)
        }
        let pool = volume.pool.map { "\(volume.group)/\($0)" } ?? "POOL"
        let room = spare.map { "Remove what is not needed, such as \($0), or make" } ?? "Make"
        return .refusal(
            .noSpace, name, error.reason,
            advice: "\(room) the pool larger: lvextend --size SIZE \(pool)")
    }

    /// Lists the dated snapshots of one name that were taken of this volume, the oldest first.
    ///
    /// The order is that of the dates in their names, so a wrong clock changes it. Renamed
    /// snapshots belong to the user and are skipped. After a merge LVM forgets the origin of the
    /// other snapshots, so the tag counts too.
    private func dated(_ wish: TargetSnapshot, in all: [LogicalVolume]) -> [String] {
        let tag = Self.tag(of: wish)
        return all.filter { $0.tags.contains(tag) && Self.isDated($0.name, as: wish.name) }
            .filter { $0.originUUID == volume.uuid || $0.tags.contains(ownTag) }
            .map(\.fullName).sorted()
    }

    /// Returns whether a name is that of a dated snapshot, such as `daily-20261123T124500Z`.
    private static func isDated(_ name: String, as prefix: String) -> Bool {
        guard name.hasPrefix("\(prefix)-") else { return false }
        let form = name.dropFirst(prefix.count + 1).map { $0.isASCII && $0.isNumber ? "0" : $0 }
        return String(form) == "00000000T000000Z"
    }

    func removeOlder(than snapshot: String, of wish: TargetSnapshot) -> [String] {
        guard let count = wish.keeps else { return [] }
        let all: [LogicalVolume]
        // The run is complete, so a signal no longer cancels it.
        do throws(IOError) { all = try lvm.uninterrupted.volumes(volume.group) } catch {
            return ["\(name): older snapshots stay: \(error.reason)"]
        }
        let older = dated(wish, in: all).filter { $0 != snapshot }
        var warnings: [String] = []
        for old in older.dropLast(count - 1) {
            do throws(IOError) { try removeSnapshot(old) } catch {
                warnings.append("\(old): it could not be removed, and stays: \(error.reason)")
            }
        }
        return warnings
    }

    /// The tag of dated snapshots; others have none.
    private static func tag(of snapshot: TargetSnapshot) -> String {
        "blkferry.history=\(snapshot.name)"
    }

    /// The tag that names the volume whose snapshots they are.
    private var ownTag: String { VolumeSnapshot.targetTag + volume.uuid }

    /// Bytes that the store of a classic snapshot needs at most, in whole extents.
    private var storeSize: Int {
        SnapshotStore.fullSize(of: volume.size).roundedUp(to: volume.extentSize)
    }

    /// Formats a time as `20261123T124500Z`.
    private static func text(of seconds: time_t) -> String {
        var seconds = seconds
        var parts = tm()
        gmtime_r(&seconds, &parts)
        func digits(_ number: Int32, _ count: Int = 2) -> String {
            let text = String(number)
            return String(repeating: "0", count: max(0, count - text.count)) + text
        }
        return digits(parts.tm_year + 1900, 4) + digits(parts.tm_mon + 1) + digits(parts.tm_mday)
            + "T" + digits(parts.tm_hour) + digits(parts.tm_min) + digits(parts.tm_sec) + "Z"
    }
}
