// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import DeltaFile
internal import DeviceProbe
internal import Glibc
internal import LinuxIO
internal import LogicalVolumes
package import WireProtocol

/// Makes a delta: the file that leads from a base to a result.
package struct DeltaCreation: Sendable {
    package struct Options: Sendable {
        /// A new file, or `-` for standard output.
        package var output: String
        /// The unit of comparison in bytes; `nil` for 4 KiB.
        package var blockSize: Int?
        /// A snapshot of the result, a logical volume, that is the base.
        package var since: String?
        /// A file of `blkferry digest` of the base, and the digests that it must have, if they are
        /// known from elsewhere.
        package var digest: String?
        package var pinnedDigests: VerityDigests?
        /// Reads the result, a logical volume, through a snapshot of its own, of this size.
        package var snapshot: Replication.Options.SnapshotSize?

        package init(output: String) { self.output = output }
    }

    package struct Report: Sendable {
        package var base: String
        package var result: String
        /// Bytes.
        package var baseSize: Int
        package var resultSize: Int
        /// SHA-256 in hexadecimal.
        package var baseDigest: String
        package var resultDigest: String
        package var records: Int
        /// Bytes of data and of zeros in the delta.
        package var data: Int
        package var zeros: Int
        /// Of the delta in bytes.
        package var length: Int
        /// Bytes of the base that were not read, as the snapshots show that they are unchanged.
        package var unread: Int
        /// Those from before the comparison, and the others.
        package var warnings: [String]
        package var closingWarnings: [String] = []
        /// The snapshot of the result was in doubt, or could not be removed.
        package var failures: [ReplicationError] = []
        package var seconds: Double
    }

    private let source: Selector
    private let base: Selector?
    let options: Options
    let control: Replication.Control
    let events: @Sendable (Replication.Event) -> Void

    /// - Parameter base: `nil` with `since` or `digest`.
    package init(
        result source: Location, base: Location?, options: Options, control: Replication.Control,
        events: @escaping @Sendable (Replication.Event) -> Void
    ) throws(ReplicationError) {
        self.source = try Self.local(source)
        self.base = try base.map { base throws(ReplicationError) in try Self.local(base) }
        precondition((base == nil) == (options.since != nil || options.digest != nil))
        self.options = options
        self.control = control
        self.events = events
        if let block = options.blockSize, !DeltaMaker.isBlock(block) {
            throw ReplicationError(
                .invalid, "block size \(block): must be a multiple of 512 that divides 4 MiB")
        }
    }

    private static func local(_ location: Location) throws(ReplicationError) -> Selector {
        guard case .local(let selector) = location else {
            throw ReplicationError(
                .invalid, "\(location): a delta is made of devices of this machine",
                advice: "Run blkferry diff there, with -o -, and send its output through ssh.")
        }
        guard !location.isStandardInput else {
            throw ReplicationError(
                .invalid, "-: a delta is not made of standard input",
                advice: "A file of that name is ./-.")
        }
        return selector
    }

    package func run() throws(ReplicationError) -> Report {
        do throws(IOError) {
            if options.since != nil || options.snapshot != nil { return try runWithVolume() }
            return try writeFromBase(source, as: "\(source)")
        } catch {
            throw ReplicationError(error)
        }
    }

    /// - Parameters:
    ///   - name: of the result in the delta.
    ///   - findMap: says where the result may differ, `nil` for everywhere. It is called when both
    ///     devices are open, since their change counters show the writes that the map lacks.
    ///   - isSound: whether the snapshot that is read was valid until now.
    private func write(
        _ source: Selector, as name: String, _ base: Selector, as baseName: String,
        map findMap: () throws(IOError) -> ChangeMap? = { nil }, isSound: () -> Bool = { true }
    ) throws(IOError) -> Report {
        let start = ContinuousClock.now
        try checkOutput(besides: source, base)
        let new = try openSource(source, as: name)
        let old = try openSource(base, as: baseName)
        let warnings = new.warnings + old.warnings
        for warning in warnings { events(.warning(warning)) }
        let counters = (new.device.changeCounter(), old.device.changeCounter())
        // Without a counter nothing shows what the map lacks.
        let map = counters.0 == nil ? nil : try findMap()
        let (sink, directory) = try openOutput()
        let maker = DeltaMaker(
            result: new.device, base: old.device, names: (name, baseName),
            block: options.blockSize ?? BlockLayout.defaultBlock, directory: directory,
            mayDiffer: { map?.overlaps($0) ?? true },
            isCancelled: { [control] in control.isCancelled })
        let made = try maker.write(to: sink) { () throws(IOError) in
            try new.device.checkIdentity()
            try old.device.checkIdentity()
            if !isSound() { throw changed(name) }
            // The map and the digest of the base would not fit the result any more.
            if map != nil, new.device.changeCounter() != counters.0 { throw changed(name) }
            if old.device.changeCounter() != counters.1 { throw changed(baseName) }
        }
        var report = Report(made, warnings, start)
        noteChange(of: new, since: counters.0, as: name, &report)
        return report
    }

    func checkOutput(besides devices: Selector...) throws(IOError) {
        guard options.output != "-" else { return }
        for device in devices { try SafetyGate.checkOutput(options.output, besides: device) }
    }

    /// The delta, and where a temporary file may be.
    func openOutput() throws(IOError) -> (DeltaSink, directory: String) {
        guard options.output != "-" else {
            let sink = try DeltaSink(STDOUT_FILENO, name: "standard output")
            return (sink, temporaryDirectory())
        }
        return (try DeltaSink(creating: options.output), directory(of: options.output))
    }

    private func writeFromBase(
        _ source: Selector, as name: String, isSound: () -> Bool = { true }
    ) throws(IOError) -> Report {
        if let digest = options.digest {
            return try write(source, as: name, fromDigests: digest, isSound: isSound)
        }
        guard let base else { preconditionFailure("a base is given") }
        return try write(source, as: name, base, as: "\(base)", isSound: isSound)
    }

    func changed(_ name: String) -> IOError {
        IOError(
            name, "diff", reason: "it changed while it was read, no delta was made",
            advice: "Use a snapshot of it; of a logical volume, --snapshot takes one.")
    }

    private func directory(of path: String) -> String {
        guard let slash = path.lastIndex(of: "/") else { return "." }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }
}

extension DeltaCreation {
    private func runWithVolume() throws(IOError) -> Report {
        let path = try resolve(source)
        let lvm = try LVM(isCancelled: { [control] in control.isCancelled })
        let volume: LogicalVolume
        if let identity = volumeIdentity(at: path) {
            volume = try lvm.volume(identity, as: "\(source)")
        } else {
            guard !FileStatus.exists(path) else {
                throw IOError("\(source)", "find volume", reason: "it is no logical volume")
            }
            volume = try lvm.volume(path)
        }
        guard !volume.isPart, !volume.isThinPool else {
            throw .refusal(.wrongKind, "\(source)", "it is a part of LVM itself")
        }
        let since = try options.since.map { name throws(IOError) in
            try lvm.snapshot(name, of: volume)
        }
        guard let size = options.snapshot else {
            return try write(volume, since, isSound: { true })
        }
        let snapshot = try SnapshotSource(
            of: volume, size: size.ofStore, lvm, control.run, events)
        let result = Result { () throws(IOError) in
            try write(snapshot.volume, since, isSound: snapshot.isSound)
        }
        // Both devices are closed by now: LVM removes no snapshot that is open.
        let failures = snapshot.finish()
        do throws(IOError) {
            var report = try result.get()
            report.failures = failures
            return report
        } catch {
            for failure in failures { events(.failure(failure)) }
            throw error
        }
    }

    private func write(
        _ volume: LogicalVolume, _ since: LogicalVolume?, isSound: () -> Bool
    ) throws(IOError) -> Report {
        let result = Selector(volume.path)
        guard let since else {
            return try writeFromBase(result, as: volume.fullName, isSound: isSound)
        }
        return try write(
            result, as: volume.fullName, Selector(since.path), as: since.fullName,
            map: { () throws(IOError) in try changes(of: volume, since: since) }, isSound: isSound)
    }

    /// Where a volume may differ from its snapshot; `nil`, with a warning, if that is unknown.
    private func changes(
        of volume: LogicalVolume, since base: LogicalVolume
    ) throws(IOError) -> ChangeMap? {
        do throws(IOError) {
            let map = try volume.changes(
                since: base, from: try volume.changeMapSource(since: base)
            ) { control.isCancelled }
            events(
                .note(
                    "\(base.fullName): \(map.byteCount) of \(map.size) bytes have changed since"))
            return map
        } catch {
            if control.isCancelled { throw error }
            events(.warning("all of \(base.fullName) is read: \(error)"))
            return nil
        }
    }
}

extension DeltaCreation.Report {
    init(_ made: DeltaMaker.Summary, _ warnings: [String], _ start: ContinuousClock.Instant) {
        let statement = made.statement
        self.init(
            base: statement.base.name, result: statement.result.name,
            baseSize: statement.base.size, resultSize: statement.result.size,
            baseDigest: statement.base.digest, resultDigest: statement.result.digest,
            records: statement.records, data: statement.data, zeros: statement.zeros,
            length: made.length, unread: made.unread, warnings: warnings,
            seconds: (ContinuousClock.now - start) / .seconds(1))
    }
}

/// `TMPDIR`, or where files that may be large belong (hier(7)).
func temporaryDirectory() -> String {
    guard let value = getenv("TMPDIR"), value.pointee != 0 else { return "/var/tmp" }
    return String(cString: value)
}
