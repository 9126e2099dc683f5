// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
package import LinuxIO

/// The logical volumes of this machine, as far as the safety gate has something done to them.
package protocol TargetVolumes: Sendable {
    /// Finds the volume that a device file is of.
    ///
    /// - Throws: what the volume manager says.
    func volume(at path: String) throws(IOError) -> any TargetVolume

    /// Looks whether a volume can be made, and makes nothing.
    ///
    /// - Parameters:
    ///   - place: where.
    ///   - size: that it is to have at least, in bytes.
    ///   - name: what the user calls it.
    /// - Returns: the size that it would have, in bytes.
    /// - Throws: a refusal where there is no room or the name is taken; a failure where there is no
    ///   such group or pool.
    func sizeOfNew(
        _ place: VolumePlace, size: Int, as name: String
    ) throws(ProbeError) -> Int

    /// Makes a volume: a thin one in a pool, else a linear one, which holds what was there before.
    ///
    /// - Parameters:
    ///   - place: where.
    ///   - size: that it is to have at least, in bytes.
    ///   - name: what the user calls it.
    /// - Returns: the volume, active.
    /// - Throws: as `sizeOfNew`; there is no such volume then.
    func create(
        _ place: VolumePlace, size: Int, as name: String
    ) throws(ProbeError) -> any TargetVolume
}

/// A logical volume that is a target.
package protocol TargetVolume: Sendable {
    /// `group/volume`.
    var name: String { get }
    /// Its device file.
    var path: String { get }
    /// Bytes.
    var size: Int { get }
    /// Sizes are multiples of this, in bytes: an extent for each stripe.
    var sizeUnit: Int { get }

    /// Why it cannot be given another size, as far as that can be told before.
    ///
    /// - Parameters:
    ///   - size: the size, in bytes.
    ///   - withSnapshot: whether a snapshot of it is to be taken before.
    /// - Returns: why not, and what can be done about it; `nil` where nothing speaks against it.
    func obstacle(toResizing size: Int, withSnapshot: Bool) -> (reason: String, advice: String?)?

    /// Gives it another size while it is open; what it gains holds what was there before.
    ///
    /// - Parameter size: bytes, a multiple of `sizeUnit`.
    /// - Throws: what the volume manager says.
    func resize(to size: Int) throws(IOError)

    /// Takes a snapshot of it as it is.
    ///
    /// - Parameters:
    ///   - snapshot: what to call it.
    ///   - name: what the user calls the volume.
    /// - Returns: the snapshot.
    /// - Throws: a refusal where there is no room, or the name is taken.
    func take(_ snapshot: TargetSnapshot, as name: String) throws(ProbeError) -> String

    /// Removes older dated snapshots that are not to be kept.
    ///
    /// - Parameters:
    ///   - snapshot: as `take` has returned it; it stays.
    ///   - wish: what was wanted of it.
    /// - Returns: what could not be removed, and why, one line each.
    func removeOlder(than snapshot: String, of wish: TargetSnapshot) -> [String]

    /// Removes the volume; nobody may have it open.
    ///
    /// - Throws: what the volume manager says.
    func remove() throws(IOError)

    /// Removes a snapshot of it.
    ///
    /// - Parameter snapshot: as `take` has returned it.
    /// - Throws: what the volume manager says.
    func removeSnapshot(_ snapshot: String) throws(IOError)
}

extension TargetVolume {
    /// The smallest size that a volume can have which holds so many bytes.
    func rounded(_ size: Int) -> Int { size.roundedUp(to: sizeUnit) }
}

/// The snapshot that is wanted of a target before it is written.
package struct TargetSnapshot: Hashable, Sendable {
    package var name: String
    /// How many dated ones of this name are kept; `nil` for one that is not dated.
    package var keeps: Int?
    /// The one that was taken before, as `take` has returned it, where the run goes on after an
    /// interruption; `nil` to take one.
    package var taken: String?

    package init(name: String, keeps: Int? = nil, taken: String? = nil) {
        self.name = name
        self.keeps = keeps
        self.taken = taken
    }
}

/// Where a new logical volume is to be: `group/volume`, with `@pool` for a thin one.
package struct VolumePlace: Hashable, Sendable {
    package var group: String
    package var volume: String
    package var pool: String?
    /// What finds the volume if it is there: as it was written, without the pool.
    package var selector: String

    /// `group/volume`.
    package var name: String { "\(group)/\(volume)" }

    /// Reads a place, also one of the form `/dev/group/volume`.
    ///
    /// `nil` for what cannot be the name of a volume.
    ///
    /// - Parameter text: what the user wrote.
    package init?(_ text: String) {
        let parts = text.split(separator: "@", maxSplits: 1, omittingEmptySubsequences: false)
        selector = String(parts[0])
        let device = selector.hasPrefix("/dev/") ? selector.dropFirst("/dev/".count) : selector[...]
        let names = device.split(separator: "/", omittingEmptySubsequences: false)
        guard names.count == 2, names[0] != "mapper", names.allSatisfy(Self.isName),
            parts.dropFirst().allSatisfy(Self.isName)
        else { return nil }
        group = String(names[0])
        volume = String(names[1])
        pool = parts.count > 1 ? String(parts[1]) : nil
    }

    /// Whether a name is one of those that LVM keeps for itself, above all for parts of volumes; see
    /// lvm(8), "Valid names".
    package static func isReserved(_ name: String) -> Bool {
        if ["snapshot", "pvmove"].contains(where: { name.hasPrefix($0) }) { return true }
        return [
            "_cdata", "_cmeta", "_corig", "_iorig", "_mimage", "_mlog", "_pmspare", "_rimage",
            "_rmeta", "_tdata", "_tmeta", "_vdata", "_vorigin",
        ].contains { name.contains($0) }
    }

    /// Whether text can be the name of a group or volume; see lvm(8), "Valid names".
    ///
    /// - Parameter text: the name.
    /// - Returns: whether LVM would take it, but for words that it has reserved.
    package static func isName(_ text: some StringProtocol) -> Bool {
        (1...127).contains(text.utf8.count) && text != "." && text != ".." && !text.hasPrefix("-")
            && text.utf8.allSatisfy { byte in
                switch byte {
                case UInt8(ascii: "a")...UInt8(ascii: "z"),
                    UInt8(ascii: "A")...UInt8(ascii: "Z"),
                    UInt8(ascii: "0")...UInt8(ascii: "9"),
                    UInt8(ascii: "+"), UInt8(ascii: "_"), UInt8(ascii: "."), UInt8(ascii: "-"):
                    true
                default: false
                }
            }
    }
}
