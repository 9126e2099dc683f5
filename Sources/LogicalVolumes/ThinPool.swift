// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Glibc
internal import LinuxIO

/// A thin pool of LVM, as the source of change maps of its volumes.
///
/// The metadata of a pool in use can be read by others only through a metadata snapshot: the
/// metadata as it was when that was reserved (Documentation/admin-guide/device-mapper/
/// thin-provisioning.rst, "Reserve and release metadata snapshots").
package struct ThinPool: Sendable {
    /// What the device mapper calls the pool: `vg0-pool-tpool`.
    package let name: String
    /// The device file of its metadata.
    private let metadata: String
    private let mapper: DeviceMapper
    /// Where the lock is that keeps several blkferrys apart.
    let lockDirectory: String

    /// Bytes of XML that are read at most; a range that changed takes about 50.
    private static let limit = 256 << 20

    /// Names a pool.
    ///
    /// - Parameters:
    ///   - group: the volume group's name.
    ///   - pool: the pool's name in it.
    ///   - mapper: how it is talked to.
    ///   - lockDirectory: where the lock is; the same for all who may use the pool.
    package init(
        group: String, pool: String, mapper: DeviceMapper = DeviceMapper(),
        lockDirectory: String = RunLock.usualDirectory
    ) {
        name = DeviceMapper.name(group: group, volume: pool, layer: "tpool")
        metadata =
            "\(mapper.directory)/\(DeviceMapper.name(group: group, volume: "\(pool)_tmeta"))"
        self.mapper = mapper
        self.lockDirectory = lockDirectory
    }

    /// Asks what two volumes of the pool do not share.
    ///
    /// What is written while this goes on is not in the answer: the new one should be a snapshot
    /// that nobody writes to.
    ///
    /// - Parameters:
    ///   - old: the thin id of what is known: a snapshot.
    ///   - new: the thin id of what has come of it.
    ///   - snapshots: who releases what is reserved when the process ends.
    ///   - isOver: asked now and then.
    /// - Returns: the answer, of the moment when it was asked for.
    /// - Throws: where there is no answer that can be trusted, and where the metadata snapshot
    ///   cannot be released.
    package func delta(
        from old: Int, to new: Int, snapshots: MetadataSnapshots = .shared,
        unless isOver: () -> Bool
    ) throws(ChangeMapError) -> ThinDelta {
        let snapshot = try snapshots.reserve(self, unless: isOver)
        let xml: [UInt8]
        do throws(ChangeMapError) {
            // Both versions of the tools know these: 0.9 in C++, 1.x in Rust.
            xml = try mapper.run(
                mapper.thinDelta,
                ["-m", "--thin1", String(old), "--thin2", String(new), metadata],
                for: name, limit: Self.limit, unless: isOver
            ).bytes
        } catch {
            var error = error
            do throws(ChangeMapError) { try snapshot.release() } catch let second {
                error.reason += "; then \(second.reason)"
                error.advice = second.advice ?? error.advice
            }
            throw error
        }
        try snapshot.release()
        return try ThinDelta(xml: xml, from: old, to: new)
    }

    /// Releases the metadata snapshot that a blkferry has left which was killed; it would be in the way
    /// of others until the next change map.
    ///
    /// - Parameter snapshots: who releases what this process has reserved.
    /// - Returns: whether there was one.
    /// - Throws: where that cannot be told, such as while another blkferry is at work in the pool.
    package func releaseLeftover(
        snapshots: MetadataSnapshots = .shared
    ) throws(ChangeMapError) -> Bool {
        try snapshots.releaseLeftover(of: self)
    }

    // MARK: For `MetadataSnapshots`

    /// What the kernel tells of the pool.
    ///
    /// - Throws: where its metadata is not to be trusted.
    func status(unless isOver: () -> Bool) throws(ChangeMapError) -> PoolStatus {
        try PoolStatus(mapper.target("status", of: name, unless: isOver), of: name)
    }

    /// The root of the metadata snapshot that somebody holds, whatever else is wrong with the pool.
    ///
    /// It asks again where dmsetup fails: a signal to all processes of a service ends that, too.
    func heldRoot() throws(ChangeMapError) -> Int? {
        var left = 3
        while true {
            do throws(ChangeMapError) {
                return PoolStatus.heldRoot(in: try mapper.target("status", of: name) { false })
            } catch {
                left -= 1
                guard left > 0 else { throw error }
                usleep(50_000)
            }
        }
    }

    /// Reserves the metadata snapshot; the lock's file says afterwards which one that is.
    func reserveSnapshot(_ lock: PoolLock) throws(ChangeMapError) {
        try send("reserve_metadata_snap", noting: .status, orElse: Self.release, lock)
    }

    /// Releases the metadata snapshot; the lock's file says nothing of it any more.
    func releaseSnapshot(_ lock: PoolLock) throws(ChangeMapError) {
        try send(Self.release, noting: .nothing, orElse: nil, lock)
    }

    private static let release = "release_metadata_snap"

    private func send(
        _ message: String, noting note: DeviceMapper.Note, orElse undo: String?, _ lock: PoolLock
    ) throws(ChangeMapError) {
        do throws(ChangeMapError) {
            try mapper.send(
                message, to: name, noting: note, orElse: undo, in: lock.descriptor)
        } catch {
            var error = error
            error.advice =
                "Look whether one is held: dmsetup status \(name); its seventh word is not - then."
            throw error
        }
    }

    /// Somebody else holds the metadata snapshot.
    var isHeld: ChangeMapError {
        ChangeMapError(
            name, "somebody else holds its metadata snapshot",
            advice: "If nobody needs it any more: dmsetup message \(name) 0 \(Self.release)")
    }
}
