// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import CLinuxBlock
internal import LinuxIO

/// The device that a classic snapshot of LVM keeps its exceptions on (`-cow`), as the source of a
/// change map of the origin.
package struct CowDevice: Sendable {
    /// What the device mapper calls the snapshot: `vg0-snap`.
    package let snapshot: String
    private let mapper: DeviceMapper

    /// Names a snapshot.
    ///
    /// - Parameters:
    ///   - group: the volume group's name.
    ///   - snapshot: the snapshot's name in it.
    ///   - mapper: how it is talked to.
    package init(group: String, snapshot: String, mapper: DeviceMapper = DeviceMapper()) {
        self.snapshot = DeviceMapper.name(group: group, volume: snapshot)
        self.mapper = mapper
    }

    /// Makes the map of the origin since the snapshot was made.
    ///
    /// The kernel completes a write to the origin only after its exception is on the store, so that
    /// the map has all writes that were complete before. What is compared must not be newer: read
    /// from a second snapshot that was made before the map was asked for, or from an origin at rest.
    ///
    /// - Parameters:
    ///   - size: bytes of the origin as it is now.
    ///   - isOver: asked now and then.
    /// - Returns: the map.
    /// - Throws: where there is no map that can be trusted.
    package func map(
        size: Int, unless isOver: () -> Bool
    ) throws(ChangeMapError) -> ChangeMap {
        let table = try mapper.target("table", of: snapshot, unless: isOver)
        guard table.type == "snapshot", table.words.count >= 3 else {
            throw ChangeMapError(snapshot, "it is of type \(table.type), no classic snapshot")
        }
        // P, or PO, where it tells of an overflow.
        guard ["P", "PO"].contains(table.words[2]) else {
            throw ChangeMapError(snapshot, "its exception store is of type \(table.words[2])")
        }
        try checkStatus(unless: isOver)
        let device: BlockSpecialFile
        do throws(IOError) {
            let path = "\(mapper.directory)/\(snapshot)-cow"
            device = try BlockSpecialFile(path: path, name: path, access: .read)
        } catch {
            throw ChangeMapError(snapshot, error.description)
        }
        let number = "\(clb_major(device.number)):\(clb_minor(device.number))"
        guard table.words[1] == number else {
            throw ChangeMapError(
                snapshot, "its exception store is on \(table.words[1]), not on \(device.name)")
        }
        let map = try ExceptionStore(device).map(size: size, oldSize: table.size, unless: isOver)
        // It may have overflowed meanwhile, and has missed writes then.
        try checkStatus(unless: isOver)
        return map
    }

    /// Makes sure that the kernel still keeps the snapshot.
    ///
    /// Source: `snapshot_status` in drivers/md/dm-snap.c: used and total sectors, those of metadata;
    /// or a word or two of what is wrong.
    private func checkStatus(unless isOver: () -> Bool) throws(ChangeMapError) {
        let status = try mapper.target("status", of: snapshot, unless: isOver)
        let fill = status.words.first?.split(separator: "/").compactMap { Int($0) } ?? []
        guard status.type == "snapshot", status.words.count == 2, fill.count == 2,
            Int(status.words[1]) != nil
        else {
            throw ChangeMapError(
                snapshot,
                "the snapshot's status is \(status.words.joined(separator: " ").lowercased())")
        }
    }
}
