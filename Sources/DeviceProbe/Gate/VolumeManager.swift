// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
package import LinuxIO
package import LogicalVolumes

/// The volume manager's operations that the safety gate needs.
package protocol VolumeManager: Sendable {
    func volume(at path: String) throws(IOError) -> any ManagedVolume

    /// The size in bytes that a new volume of at least `size` bytes would have.
    ///
    /// - Throws: a refusal if there is no room or the name is taken; a failure if the group or pool
    ///   does not exist.
    func sizeOfNew(
        _ place: VolumePlace, size: Int, as name: String
    ) throws(IOError) -> Int

    /// Creates an active volume: a thin one in a pool, or a linear one, which holds old data.
    ///
    /// It throws as `sizeOfNew` does, and then leaves no volume.
    func create(
        _ place: VolumePlace, size: Int, as name: String
    ) throws(IOError) -> any ManagedVolume
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
    func take(_ snapshot: TargetSnapshot, as name: String) throws(IOError) -> String

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
