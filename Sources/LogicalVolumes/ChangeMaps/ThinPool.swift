// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices
package import LinuxIO
internal import SystemPackage

/// A thin pool of LVM, as the source of change maps of its volumes.
///
/// Other programs can read the metadata of an active pool only through a metadata snapshot, which
/// freezes the metadata as of its reservation
/// (Documentation/admin-guide/device-mapper/thin-provisioning.rst, "Reserve and release metadata
/// snapshots").
package struct ThinPool: Sendable {
    /// The pool's device mapper name, such as `vg0-pool-tpool`.
    package let name: String
    private let metadata: String
    private let mapper: DeviceMapper
    private let programs: Programs
    /// The directory of the lock that admits one blkferry process at a time; it must be the same
    /// for every process that uses the pool.
    let lockDirectory: String

    /// The programs that read the metadata: names to look up, or paths.
    package struct Programs: Sendable {
        package var delta = "thin_delta"
        package var dump = "thin_dump"

        package init() {}
    }

    /// Limit of the XML in bytes; a changed range takes about 50.
    private static let limit = 256 << 20

    package init(
        group: String, pool: String, mapper: DeviceMapper = DeviceMapper(),
        programs: Programs = Programs(), lockDirectory: String = RunLock.usualDirectory
    ) {
        let volume = VolumeName(group: group, volume: pool).mapperName
        self.init(volume + Self.suffix, volume: volume, mapper, programs, lockDirectory)
    }

    /// Makes a pool of its device mapper name; `nil` if that is no thin pool's of LVM.
    init?(
        mapperName name: String, mapper: DeviceMapper, programs: Programs = Programs(),
        lockDirectory: String = RunLock.usualDirectory
    ) {
        guard name.hasSuffix(Self.suffix) else { return nil }
        let volume = String(name.dropLast(Self.suffix.count))
        self.init(name, volume: volume, mapper, programs, lockDirectory)
    }

    private static let suffix = "-tpool"

    private init(
        _ name: String, volume: String, _ mapper: DeviceMapper, _ programs: Programs,
        _ lockDirectory: String
    ) {
        self.name = name
        metadata = "\(mapper.directory)/\(volume)_tmeta"
        self.mapper = mapper
        self.programs = programs
        self.lockDirectory = lockDirectory
    }

    /// Compares the mappings of a snapshot and of a volume that descends from it, by their thin
    /// ids.
    ///
    /// The result is that of the moment of the call, and misses later writes. The new volume should
    /// be a snapshot that no program writes to.
    ///
    /// - Throws: also if the metadata snapshot cannot be released.
    package func delta(
        from old: Int, to new: Int, snapshots: MetadataSnapshots = .shared,
        unless isCancelled: () -> Bool
    ) throws(IOError) -> ThinDelta {
        try reading(snapshots, unless: isCancelled) { () throws(IOError) in
            try delta(from: old, to: new, unless: isCancelled)
        }
    }

    /// Compares the same mappings, and reads those of the old volume, a snapshot that blkferry
    /// made.
    ///
    /// - Returns: the delta, and the old volume's mappings; `nil` for them if thin_dump fails.
    func deltaAndOld(
        from old: Int, to new: Int, snapshots: MetadataSnapshots = .shared,
        unless isCancelled: () -> Bool
    ) throws(IOError) -> (ThinDelta, ThinDump?) {
        try reading(snapshots, unless: isCancelled) { () throws(IOError) in
            // The output for a volume with random writes may exceed the limit.
            let dump = try? dump(of: old, unless: isCancelled)
            return (try delta(from: old, to: new, unless: isCancelled), dump)
        }
    }

    /// Reads the mappings of a volume by its thin id.
    ///
    /// The result is that of the moment of the call, and misses later writes.
    ///
    /// - Throws: also if the metadata snapshot cannot be released.
    func dump(
        of volume: Int, snapshots: MetadataSnapshots, unless isCancelled: () -> Bool
    ) throws(IOError) -> ThinDump {
        try reading(snapshots, unless: isCancelled) { () throws(IOError) in
            try dump(of: volume, unless: isCancelled)
        }
    }

    private func dump(
        of volume: Int, unless isCancelled: () -> Bool
    ) throws(IOError) -> ThinDump {
        try ThinDump(
            xml: run(programs.dump, ["-m", "--dev-id", String(volume)], unless: isCancelled),
            of: volume)
    }

    private func delta(
        from old: Int, to new: Int, unless isCancelled: () -> Bool
    ) throws(IOError) -> ThinDelta {
        // thin_delta 0.9 (C++) and 1.x (Rust) both know these options.
        let xml = try run(
            programs.delta, ["-m", "--thin1", String(old), "--thin2", String(new)],
            unless: isCancelled)
        return try ThinDelta(xml: xml, from: old, to: new)
    }

    private func run(
        _ program: String, _ arguments: [String], unless isCancelled: () -> Bool
    ) throws(IOError) -> [UInt8] {
        guard let path = Program.findOfSystem(program) else {
            throw .noChangeMap(name, "\(program) is not found on this machine")
        }
        if isCancelled() { throw .cancelled(name) }
        let run: ProgramRun
        do throws(Errno) {
            run = try ProgramRun(
                path, arguments + [metadata], reading: .wholeOutput(limit: Self.limit),
                unless: isCancelled)
        } catch {
            throw .noChangeMap(name, "\(path): start: \(error)")
        }
        guard let failure = run.failure else { return run.bytes }
        if isCancelled() { throw .cancelled(name) }
        // Later lines only show the usage, or that a command failed.
        let reason = run.errorLines.first.map { ": \($0)" } ?? ""
        throw .noChangeMap(name, "\(path.split(separator: "/").last ?? ""): \(failure)\(reason)")
    }

    private func reading<Answer>(
        _ snapshots: MetadataSnapshots, unless isCancelled: () -> Bool,
        _ body: () throws(IOError) -> Answer
    ) throws(IOError) -> Answer {
        let snapshot = try snapshots.reserve(self, unless: isCancelled)
        let answer: Answer
        do throws(IOError) { answer = try body() } catch {
            var error = error
            do throws(IOError) { try snapshot.release() } catch let second {
                error.reason += "; then \(second.reason)"
                error.advice = second.advice ?? error.advice
            }
            throw error
        }
        try snapshot.release()
        return answer
    }

    /// Releases the metadata snapshot that a killed blkferry left behind; `false` if there is none.
    ///
    /// Otherwise the pool would refuse a new one to other programs until the next change map.
    ///
    /// - Throws: also if another blkferry uses the pool.
    package func releaseLeftover(
        snapshots: MetadataSnapshots = .shared
    ) throws(IOError) -> Bool {
        try snapshots.releaseLeftover(of: self)
    }

    // MARK: For `MetadataSnapshots`

    /// Reads the pool's status; throws if its metadata cannot be trusted.
    func status() throws(IOError) -> PoolStatus {
        try PoolStatus(mapper.target(.status, of: name), of: name)
    }

    /// Reads the root of the held metadata snapshot, even if the pool cannot be trusted.
    func heldRoot() throws(IOError) -> Int? {
        PoolStatus.heldRoot(in: try mapper.target(.status, of: name).words)
    }

    /// Reserves the metadata snapshot, and records its root in the lock's file.
    func reserveSnapshot(_ lock: PoolLock) throws(IOError) {
        try send("reserve_metadata_snap", orElse: Self.release, lock)
    }

    /// Releases the metadata snapshot, and empties the lock's file.
    func releaseSnapshot(_ lock: PoolLock) throws(IOError) {
        try send(Self.release, orElse: nil, lock)
    }

    private static let release = "release_metadata_snap"

    private func send(
        _ message: String, orElse undo: String?, _ lock: PoolLock
    ) throws(IOError) {
        do throws(IOError) {
            try mapper.send(message, to: name, orElse: undo, recordIn: lock.descriptor)
        } catch {
            throw .noChangeMap(
                name, error.description,
                advice: "If one is held, the seventh word of dmsetup status \(name) is not -.")
        }
    }

    /// The error if another program holds the metadata snapshot.
    var isHeld: IOError {
        .noChangeMap(
            name, "another program holds its metadata snapshot",
            advice: "If no program needs it any more: dmsetup message \(name) 0 \(Self.release)")
    }
}
