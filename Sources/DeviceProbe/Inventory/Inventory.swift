// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import CLinuxBlock
package import LinuxIO
package import LogicalVolumes
internal import SystemPackage

/// A block device of this machine.
package struct InventoryEntry: Hashable, Sendable {
    package var path: String
    /// `st_rdev`.
    package var number: UInt64
    /// Bytes.
    package var size: Int
    /// Bytes.
    package var logicalSector: Int
    package var isReadOnly: Bool
    package var isPartition = false
    /// `nil` if it was not probed or cannot be known; see `unreadable`.
    package var content: Content?
    package var partUUID: String?
    package var partLabel: String?
    package var volumeIdentity: VolumeIdentity?
    /// Name in /dev/mapper of a device-mapper device.
    package var mapperName: String?
    package var volumeName: VolumeName?
    /// Whether LVM uses it as a part of a volume.
    package var isPartOfVolume = false
    /// In words: `mounted on /mnt`, `partition sda1 mounted on /`.
    package var inUseBy: [String]
    /// Why the content is not known.
    package var unreadable: String?
    /// Whether it did not answer in time.
    package var isLate = false
    /// Whether /dev has the device file.
    package var hasNode: Bool

    /// The text of `unreadable` for a device that did not answer in time.
    package static let noAnswer = "does not answer"

    /// In the form that lvs(8) prints.
    package var lvUUID: String? { volumeIdentity?.uuid }

    /// Whether it is a snapshot that blkferry has taken of a source.
    package var isOwnSnapshot: Bool { volumeName.map { isNameOfOwnSnapshot($0.volume) } ?? false }

    package var majorMinor: String { "\(clb_major(number)):\(clb_minor(number))" }
}

/// All block devices of this machine that have a size, in natural order, probed in the background.
///
/// A device that cannot be read is an entry with the reason, not an error; without root that is
/// most of them. The same applies to a device that does not answer in time, which delays no other
/// one.
package struct Inventory: Sendable {
    /// What the kernel knows without asking a device.
    package let devices: [InventoryEntry]
    private let host: HostState
    /// `Shortages.count` before a device was opened.
    private let shortages = Shortages.count
    private let probes: TimedProbes<InventoryEntry>
    /// For each partition, the index of its disk.
    private let disks: [Int?]
    /// For each device, the indices of the devices that are made of it.
    private let holders: [[Int]]

    static let patience = Duration.seconds(3)
    private static let threads = 16

    /// Starts to probe the devices; throws if sysfs or procfs is missing.
    package init(view: SystemView = SystemView()) throws(IOError) {
        let host = HostState(view)
        if let error = host.blindness { throw error }
        self.init(host)
    }

    /// - Parameter numbers: reads only the devices with these numbers; `nil` for all.
    init(_ host: HostState, only numbers: Set<UInt64>? = nil) {
        let devices = entries(of: host, only: numbers)
        self.host = host
        self.devices = devices
        let places = Dictionary(
            zip(devices.map(\.number), devices.indices), uniquingKeysWith: { first, _ in first })
        disks = devices.map { entry in
            host[entry.number]?.disk.flatMap { host[$0] }.flatMap { places[$0.number] }
        }
        holders = devices.map { entry in
            (host[entry.number]?.holders ?? []).compactMap { host[$0] }
                .compactMap { places[$0.number] }
        }
        probes = TimedProbes(
            devices.map(\.number), patience: Self.patience, threads: Self.threads
        ) { index in
            var entry = devices[index]
            entry.probe(host)
            return entry
        }
    }

    /// Describes the device at an index; waits until it answers or its time is over.
    package func entry(_ index: Int) -> InventoryEntry {
        var entry = probed(index)
        if entry.content?.found.contains(where: { $0.usage == .raid }) == true {
            entry.leaveOut(whatIsOn: holders[index].map { probed($0) })
        }
        if let disk = disks[index], let device = host[entry.number],
            let content = probed(disk).content
        {
            entry.setPartition(device, from: content)
        }
        return entry
    }

    /// Why the entries may be incomplete; `nil` if there was no shortage of descriptors.
    package var shortage: IOError? {
        Shortages.since(shortages).map { IOError("devices", "probe", $0) }
    }

    private func probed(_ index: Int) -> InventoryEntry {
        if let entry = probes.answer(index) { return entry }
        var entry = devices[index]
        entry.isLate = true
        entry.unreadable = InventoryEntry.noAnswer
        return entry
    }

    /// Waits until `entry` returns at once for every device, or until a deadline.
    package func waitForAll(until deadline: ContinuousClock.Instant) {
        probes.waitForAll(until: deadline)
    }

    /// Whether `entry` returns at once.
    package func isKnown(_ index: Int) -> Bool {
        probes.isKnown(index) && holders[index].allSatisfy { probes.isKnown($0) }
            && (disks[index].map { probes.isKnown($0) } ?? true)
    }
}

/// All block devices with a size, after all have answered or timed out; see `Inventory`.
package func inventory(view: SystemView = SystemView()) throws(IOError) -> [InventoryEntry] {
    let inventory = try Inventory(view: view)
    return inventory.devices.indices.map { inventory.entry($0) }
}

/// The devices that have a size, without their content.
func entries(of host: HostState, only numbers: Set<UInt64>? = nil) -> [InventoryEntry] {
    host.devices.filter { $0.size > 0 && numbers?.contains($0.number) ?? true }
        .map { InventoryEntry($0, host) }
}

extension InventoryEntry {
    fileprivate init(_ device: KernelDevice, _ host: HostState) {
        path = device.path
        number = device.number
        size = device.size
        logicalSector = device.logicalSector
        isReadOnly = device.isReadOnly
        isPartition = device.disk != nil
        partUUID = device.partUUID
        partLabel = device.partLabel
        volumeIdentity = device.volumeIdentity
        mapperName = device.mapperName
        volumeName = device.volumeName
        isPartOfVolume = host.isPartOfVolume(device)
        inUseBy = host.uses(of: device.number).map(\.note)
        let found = host.view.deviceNumber(at: device.path)
        hasNode = found == device.number
        if !hasNode {
            unreadable =
                found == nil
                ? "there is no \(device.path)" : "\(device.path) is another device"
        }
    }

    mutating func probe(_ host: HostState) {
        guard hasNode else { return }
        do throws(Errno) {
            let prober = try Prober(
                path: host.view.devicePath(path), identity: .device(number), size: size,
                logicalSector: logicalSector, mayHang: true)
            set(prober.content())
        } catch {
            unreadable = error.description
        }
    }

    /// Adds UUID and name from the partition table of its disk.
    fileprivate mutating func setPartition(_ device: KernelDevice, from content: Content?) {
        let partition = content?.partitionTable?.partitions.first {
            $0.number == device.partitionNumber && $0.range.offset == device.start
        }
        partUUID = partition?.uuid ?? partUUID
        partLabel = partition?.name ?? partLabel
    }

    mutating func set(_ found: Content) {
        switch found {
        case .unreadable(let reason):
            content = nil
            unreadable = reason
        case .partial(let partial):
            content = found
            unreadable = partial.reason
        case .empty, .signatures, .ambiguous: content = found
        }
    }
}
