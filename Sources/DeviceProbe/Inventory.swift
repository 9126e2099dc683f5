// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import CLinuxBlock
internal import LinuxIO
internal import SystemPackage

/// A block device of this machine.
package struct InventoryEntry: Hashable, Sendable {
    /// Its device file.
    package var path: String
    /// Its number (`st_rdev`).
    package var number: UInt64
    /// Bytes.
    package var size: Int
    /// Bytes.
    package var logicalSector: Int
    package var isReadOnly: Bool
    /// What is on it; `nil` where that was not asked or cannot be known, see `unreadable`.
    package var content: Content?
    package var partUUID: String?
    package var partLabel: String?
    /// Of a logical volume.
    package var volumeIdentity: VolumeIdentity?
    /// For a device-mapper device: the name in /dev/mapper.
    package var mapperName: String?
    /// Of a logical volume.
    package var volumeName: VolumeName?
    /// Whether LVM has it below a volume.
    package var isPartOfVolume = false
    /// In words: `mounted on /mnt`, `partition sda1 mounted on /`.
    package var inUseBy: [String]
    /// Why the content is not known.
    package var unreadable: String?
    /// Whether /dev has the device file.
    package var hasNode: Bool

    /// In the form that lvs(8) prints.
    package var lvUUID: String? { volumeIdentity?.uuid }

    /// Whether it is a snapshot that blkferry has taken of a source.
    package var isOwnSnapshot: Bool { volumeName.map { isNameOfOwnSnapshot($0.volume) } ?? false }

    /// The number as the kernel writes it.
    package var majorMinor: String { "\(clb_major(number)):\(clb_minor(number))" }
}

/// All block devices of this machine that have a size, ordered by name, numbers as numbers.
///
/// A device that cannot be read is an entry that says so, not an error; without root that is most
/// of them.
///
/// - Parameter view: where the machine tells about its devices.
/// - Returns: disks, partitions, logical volumes, md and loop devices alike.
/// - Throws: when sysfs or procfs is not there.
package func inventory(view: SystemView = SystemView()) throws(ProbeError) -> [InventoryEntry] {
    let host = HostState(view)
    if let error = host.blindness { throw .failed(error) }
    return inventory(host, probing: true)
}

/// The same on a state that is known, optionally without looking at the content.
func inventory(_ host: HostState, probing: Bool) -> [InventoryEntry] {
    var entries: [InventoryEntry] = []
    for device in host.devices where device.size > 0 {
        entries.append(InventoryEntry(device, host, probing: probing))
    }
    let contents = Dictionary(
        zip(entries.map(\.number), entries.map(\.content)), uniquingKeysWith: { first, _ in first })
    for index in entries.indices {
        guard let device = host[entries[index].number],
            let disk = device.disk.flatMap({ host[$0] }), let content = contents[disk.number]
        else { continue }
        entries[index].setPartition(device, from: content)
    }
    return entries
}

extension InventoryEntry {
    fileprivate init(_ device: KernelDevice, _ host: HostState, probing: Bool) {
        path = device.path
        number = device.number
        size = device.size
        logicalSector = device.logicalSector
        isReadOnly = device.isReadOnly
        partUUID = device.partUUID
        partLabel = device.partLabel
        volumeIdentity = device.volumeIdentity
        mapperName = device.mapperName
        volumeName = device.volumeName
        isPartOfVolume = host.isPartOfVolume(device)
        inUseBy = host.uses(of: device.number).map(\.note)
        let found = host.view.deviceNumber(at: device.path)
        hasNode = found == device.number
        guard hasNode else {
            unreadable =
                found == nil
                ? "there is no \(device.path)" : "\(device.path) is another device"
            return
        }
        if probing { probe(host) }
    }

    /// Looks at what is on it.
    mutating func probe(_ host: HostState) {
        guard hasNode else { return }
        do throws(Errno) {
            let prober = try Prober(
                path: host.view.devicePath(path), identity: .device(number), size: size,
                logicalSector: logicalSector)
            set(prober.content())
        } catch {
            unreadable = error.description
        }
    }

    /// Looks at the partition table that it is in, which some kernels tell little of.
    ///
    /// - Parameters:
    ///   - host: has its disk.
    ///   - entries: all of that host.
    mutating func probePartitionTable(_ host: HostState, among entries: [InventoryEntry]) {
        guard let device = host[number], let disk = device.disk.flatMap({ host[$0] }),
            var entry = entries.first(where: { $0.number == disk.number })
        else { return }
        entry.probe(host)
        setPartition(device, from: entry.content)
    }

    /// Takes down what its disk's partition table says of it.
    fileprivate mutating func setPartition(_ device: KernelDevice, from content: Content?) {
        let partition = content?.partitionTable?.partitions.first {
            $0.number == device.partitionNumber && $0.range.offset == device.start
        }
        partUUID = partition?.uuid ?? partUUID
        partLabel = partition?.name ?? partLabel
    }

    /// Takes down what is on it, or why that is not known.
    mutating func set(_ found: Content) {
        if case .unreadable(let reason) = found {
            content = nil
            unreadable = reason
        } else {
            content = found
        }
    }
}

/// Which logical volume a device is, in the form that lvs(8) prints.
///
/// Volumes of a group that was imported as a clone of another keep their UUIDs, and only the group
/// gets a new one; see vgimportclone(8).
package struct VolumeIdentity: Hashable, Sendable {
    package var groupUUID: String
    package var uuid: String

    package init(groupUUID: String, uuid: String) {
        self.groupUUID = groupUUID
        self.uuid = uuid
    }
}

extension KernelDevice {
    /// Which logical volume it is; `nil` for what is none, or only a part of one.
    ///
    /// Source: LVM's `build_dm_uuid`: `LVM-`, the volume group's 32 characters, the volume's 32;
    /// hidden parts of a volume have a suffix.
    var volumeIdentity: VolumeIdentity? {
        guard let mapperUUID, mapperUUID.hasPrefix("LVM-"), mapperUUID.utf8.count == 4 + 64 else {
            return nil
        }
        func dashed(_ plain: Substring) -> String {
            var rest = plain
            let groups = [6, 4, 4, 4, 4, 4, 6].map { length in
                defer { rest = rest.dropFirst(length) }
                return rest.prefix(length)
            }
            return groups.joined(separator: "-")
        }
        return VolumeIdentity(
            groupUUID: dashed(mapperUUID.dropFirst(4).prefix(32)),
            uuid: dashed(mapperUUID.suffix(32)))
    }

    /// The UUID of a logical volume as lvs(8) prints it.
    var logicalVolumeUUID: String? { volumeIdentity?.uuid }
}

/// Which logical volume a path leads to.
///
/// - Parameters:
///   - path: of a device file.
///   - view: where the machine tells about its devices.
/// - Returns: `nil` for what is no active logical volume, or only a part of one.
package func volumeIdentity(at path: String, view: SystemView = SystemView()) -> VolumeIdentity? {
    guard let status = try? FileStatus(path: path), status.kind == .blockDevice else { return nil }
    return HostState(view)[status.device]?.volumeIdentity
}
