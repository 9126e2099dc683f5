// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
package import LinuxIO

/// The volume manager's operations that the safety gate needs.
package protocol VolumeManager: Sendable {
    func volume(at path: String) throws(IOError) -> any ManagedVolume

    /// The size in bytes that a new volume of at least `size` bytes would have.
    ///
    /// - Throws: a refusal if there is no room or the name is taken; a failure if the group or pool
    ///   does not exist.
    func sizeOfNew(
        _ place: VolumePlace, size: Int, as name: String
    ) throws(ProbeError) -> Int

    /// Creates an active volume: a thin one in a pool, or a linear one, which holds old data.
    ///
    /// It throws as `sizeOfNew` does, and then leaves no volume.
    func create(
        _ place: VolumePlace, size: Int, as name: String
    ) throws(ProbeError) -> any ManagedVolume
}

/// A logical volume that is a target.
package protocol ManagedVolume: Sendable {
    /// `group/volume`.
    var name: String { get }
    var path: String { get }
    /// Bytes.
    var size: Int { get }
    /// Sizes are multiples of this, in bytes: an extent for each stripe.
    var sizeUnit: Int { get }

    /// Why the volume cannot get a size in bytes, as far as that is known before; `nil` if it can.
    func obstacle(toResizing size: Int, withSnapshot: Bool) -> (reason: String, advice: String?)?

    /// Resizes the open volume to a multiple of `sizeUnit`, in bytes; new space holds old data.
    func resize(to size: Int) throws(IOError)

    /// Takes a snapshot and returns its name; refuses without room, or if the name is taken.
    func take(_ snapshot: TargetSnapshot, as name: String) throws(ProbeError) -> String

    /// Removes older dated snapshots beyond the number to keep, and returns a line for each
    /// failure.
    func removeOlder(than snapshot: String, of wish: TargetSnapshot) -> [String]

    /// Removes the volume, which no program may have open.
    func remove() throws(IOError)

    func removeSnapshot(_ snapshot: String) throws(IOError)
}

extension ManagedVolume {
    /// Rounds up to a size that the volume can have, in bytes.
    func rounded(_ size: Int) -> Int { size.roundedUp(to: sizeUnit) }
}

/// The snapshot to take of a target before it is written.
package struct TargetSnapshot: Hashable, Sendable {
    package var name: String
    /// The number of dated snapshots of this name to keep; `nil` if the name is not dated.
    package var keeps: Int?
    /// The snapshot that the run took before an interruption; `nil` to take one.
    package var taken: String?

    package init(name: String, keeps: Int? = nil, taken: String? = nil) {
        self.name = name
        self.keeps = keeps
        self.taken = taken
    }
}

/// Where to create a logical volume: `group/volume`, with `@pool` for a thin one.
package struct VolumePlace: Hashable, Sendable {
    package var group: String
    package var volume: String
    package var pool: String?
    /// Finds an existing volume: the text without the pool.
    package var selector: String

    /// `group/volume`.
    package var name: String { "\(group)/\(volume)" }

    /// Reads a place, also in the form `/dev/group/volume`; `nil` if no volume can have the name.
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

    /// Whether LVM reserves the name, mostly for parts of volumes; see lvm(8), "Valid names".
    package static func isReserved(_ name: String) -> Bool {
        if ["snapshot", "pvmove"].contains(where: { name.hasPrefix($0) }) { return true }
        return [
            "_cdata", "_cmeta", "_corig", "_iorig", "_mimage", "_mlog", "_pmspare", "_rimage",
            "_rmeta", "_tdata", "_tmeta", "_vdata", "_vorigin",
        ].contains { name.contains($0) }
    }

    /// Whether a text can name a group or volume, except for reserved words; see lvm(8), "Valid
    /// names".
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
