// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices
package import LinuxIO

/// An active thin volume of LVM that reads as zeros where its pool has mapped nothing.
///
/// Source: `process_bio` and `provision_block` in drivers/md/dm-thin.c. They fill such reads with
/// zeros, also after a discard and in a pool that does not zero new chunks, unless the volume has an
/// external origin.
package struct ThinVolume: Sendable {
    /// The volume's device mapper name, such as `vg0-root`.
    private let name: String
    /// Its id in the pool.
    private let id: Int
    private let pool: ThinPool
    private let mapper: DeviceMapper

    init(name: String, id: Int, pool: ThinPool, mapper: DeviceMapper) {
        self.name = name
        self.id = id
        self.pool = pool
        self.mapper = mapper
    }

    /// Recognizes the thin volume with an `st_rdev` by the kernel's tables; `nil` for other devices.
    ///
    /// A thin volume with a classic snapshot is another device for the kernel.
    ///
    /// - Throws: if its table cannot be read, or if it has an external origin.
    package init?(
        of number: UInt64, mapper: DeviceMapper = DeviceMapper(), sys: String = "/sys"
    ) throws(IOError) {
        guard let device = SystemDevice(number: number, sys: sys),
            let name = device.attribute("dm/name"), let uuid = device.attribute("dm/uuid"),
            VolumeUUID(mapper: uuid) != nil,
            let below = device.slaves?.compactMap({ $0.device.attribute("dm/name") }),
            let pool = below.lazy.compactMap({ ThinPool(mapperName: $0, mapper: mapper) }).first
        else { return nil }
        guard let table = mapper.table(of: number) else {
            throw .unknownMappings(name, "its table cannot be read, which takes root")
        }
        guard let id = try Self.id(in: table.targets, of: name) else { return nil }
        self.init(name: name, id: id, pool: pool, mapper: mapper)
    }

    /// Returns a thin volume's id in its pool, as its table shows it; `nil` for other devices.
    ///
    /// Source: Documentation/admin-guide/device-mapper/thin-provisioning.rst: pool, id, and the
    /// external origin if there is one.
    ///
    /// - Parameter name: the object of errors.
    /// - Throws: if a read where the pool has mapped nothing may return other bytes than zeros.
    static func id(in targets: [MapperTable.Target], of name: String) throws(IOError) -> Int? {
        guard let thin = targets.first(where: { $0.type == "thin" }) else { return nil }
        let words = thin.words
        guard words.count < 3 else {
            throw .unknownMappings(name, "it has an external origin")
        }
        guard targets.count == 1, words.count == 2, let id = Int(words[1]), id >= 0 else {
            throw .unknownMappings(name, "its table is not known: thin \(thin.parameters)")
        }
        return id
    }

    /// Reads where the volume may hold anything but zeros.
    ///
    /// The map is that of the moment of the call, and lacks later writes.
    ///
    /// - Parameter size: bytes of the volume's device.
    /// - Returns: `nil` if the volume is mapped completely.
    /// - Throws: if the pool's metadata cannot be read or trusted, or if another program holds its
    ///   metadata snapshot.
    package func data(
        size: Int, snapshots: MetadataSnapshots = .shared, unless isCancelled: () -> Bool
    ) throws(IOError) -> ChangeMap? {
        // A metadata snapshot makes the pool commit, which must pay.
        if let mapped = mapper.mappedBytes(of: name), mapped >= size { return nil }
        let dump = try pool.dump(of: id, snapshots: snapshots, unless: isCancelled)
        return ChangeMap(dump.ranges, size: size, oldSize: size)
    }
}

extension IOError {
    /// It is unknown what a thin volume has mapped; the caller reads all of it.
    fileprivate static func unknownMappings(_ object: String, _ reason: String) -> IOError {
        IOError(object, "find what is mapped", reason: reason)
    }
}
