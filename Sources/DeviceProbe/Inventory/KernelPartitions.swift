// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices
internal import LinuxIO
internal import SystemPackage

/// The kernel's view of a disk's partitions after the disk was written.
package enum KernelPartitions {
    package struct Update: Sendable {
        /// Whether the kernel has read the table again.
        package var wasRead = false
        /// Why the kernel still has the earlier partitions, on one line.
        package var warning: String?
    }

    /// Makes the kernel read a disk's partition table again, if its partitions may differ from it.
    ///
    /// The kernel refuses while a partition is open. So a run that writes nothing tries again if
    /// the kernel's partitions differ from the table.
    ///
    /// - Parameter device: flushed; nothing is done for a device that is not a disk.
    package static func update(
        _ device: any BlockDevice, wasWritten: Bool, view: SystemView = SystemView()
    ) -> Update {
        // An image is no disk, and neither is a volume that LVM may resize.
        guard let device = device as? BlockSpecialFile else { return Update() }
        let host = HostState(view)
        guard let disk = host[device.number], disk.disk == nil else { return Update() }
        let known = host.partitions(of: disk)
        guard wasWritten || !known.isEmpty && !areInTable(known, of: disk, device, view) else {
            return Update()
        }
        if device.rereadPartitions() { return Update(wasRead: true) }
        if known.isEmpty || areInTable(known, of: disk, device, view) { return Update() }
        return Update(warning: warning(known, of: disk, device.name, host))
    }

    /// Whether the kernel knows exactly the partitions of the disk's table.
    private static func areInTable(
        _ known: [KernelDevice], of disk: KernelDevice, _ device: BlockSpecialFile,
        _ view: SystemView
    ) -> Bool {
        let content: Content
        do throws(Errno) {
            content = try Prober(
                path: view.devicePath(disk.path), identity: .device(disk.number),
                size: device.geometry.size, logicalSector: device.geometry.logicalSector
            ).content()
        } catch {
            // The kernel could not read it either.
            return true
        }
        let table = content.partitionTable?.partitions ?? []
        // The kernel shows only the first sectors of an extended partition.
        let extended = Set(table.filter { ["0x5", "0xf", "0x85"].contains($0.type) }.map(\.number))
        let places = { (partitions: [Partition]) in
            Set(
                partitions.map { part in
                    [part.number, part.range.offset]
                        + (extended.contains(part.number) ? [] : [part.range.length])
                })
        }
        return places(known.map(\.asPartition)) == places(table)
    }

    private static func warning(
        _ known: [KernelDevice], of disk: KernelDevice, _ name: String, _ host: HostState
    ) -> String {
        let claimants = Claimants(host: host)
        let busy = known.flatMap { part in
            let uses = host.uses(of: part.number).filter { $0.subject == .itself }.map(\.text)
            let openers = claimants.openers(ofDevice: part.number).map { "open in \($0)" }
            let reasons = uses.isEmpty ? openers : uses
            return reasons.map { "\(part.name) is \($0)" }
        }
        let why =
            busy.isEmpty
            ? "which it cannot read again" : "since \(busy.joined(separator: ", and "))"
        return "\(name): the kernel keeps the old partitions, \(why); "
            + (busy.isEmpty ? "run " : "end that, then run ") + "partprobe \(disk.path)"
    }
}
