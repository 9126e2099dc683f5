// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices
internal import CLinuxBlock
package import LinuxIO

/// The COW device (`-cow`) on which a classic LVM snapshot keeps its exceptions, as the source of a
/// change map of the origin.
package struct CowDevice: Sendable {
    /// The snapshot's device mapper name, such as `vg0-snap`.
    package let snapshot: String
    private let mapper: DeviceMapper

    package init(group: String, snapshot: String, mapper: DeviceMapper = DeviceMapper()) {
        self.snapshot = VolumeName(group: group, volume: snapshot).mapperName
        self.mapper = mapper
    }

    /// Makes the map of the origin, `size` bytes now, since the snapshot was made.
    ///
    /// The kernel completes a write to the origin only after its exception is in the store. The map
    /// therefore has every write that completed before the map was requested. The data that is
    /// compared must not be newer. It must come from a second snapshot that was made before the map
    /// was requested, or from an origin at rest.
    package func map(
        size: Int, unless isCancelled: () -> Bool
    ) throws(IOError) -> ChangeMap {
        let table = try mapper.target(.table, of: snapshot)
        guard table.type == "snapshot", table.words.count >= 3 else {
            throw .noChangeMap(snapshot, "it is of type \(table.type), no classic snapshot")
        }
        // `P` is persistent, `PO` is persistent with an overflow that the status reports.
        guard ["P", "PO"].contains(table.words[2]) else {
            throw .noChangeMap(snapshot, "its exception store is of type \(table.words[2])")
        }
        try checkStatus()
        let device: BlockSpecialFile
        do throws(IOError) {
            let path = "\(mapper.directory)/\(snapshot)-cow"
            device = try BlockSpecialFile(path: path, name: path, access: .read)
        } catch {
            throw .noChangeMap(snapshot, error.description)
        }
        let number = "\(clb_major(device.number)):\(clb_minor(device.number))"
        guard table.words[1] == number else {
            throw .noChangeMap(
                snapshot, "its exception store is on \(table.words[1]), not on \(device.name)")
        }
        let map = try ExceptionStore(device).map(
            size: size, oldSize: table.size, unless: isCancelled)
        // The snapshot may have overflowed during the read. It misses writes then.
        try checkStatus()
        return map
    }

    /// Checks that the kernel has not invalidated the snapshot.
    ///
    /// Source: `snapshot_status` in drivers/md/dm-snap.c. A valid snapshot reports used and total
    /// sectors, then metadata sectors. An invalid one reports one or two words that name the fault.
    private func checkStatus() throws(IOError) {
        let status = try mapper.target(.status, of: snapshot)
        let fill = status.words.first?.split(separator: "/").compactMap { Int($0) } ?? []
        guard status.type == "snapshot", status.words.count == 2, fill.count == 2,
            Int(status.words[1]) != nil
        else {
            throw .noChangeMap(
                snapshot,
                "the snapshot's status is \(status.words.joined(separator: " ").lowercased())")
        }
    }
}
