// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import DeltaFile
internal import DeviceProbe
internal import Glibc
internal import LinuxIO
internal import SystemPackage
internal import UndoJournal
package import WireProtocol

/// Applies a delta to a target, which becomes the result, or stays as it is.
package struct DeltaTarget: Sendable {
    package struct Options: Sendable {
        package var sizePolicy: Replication.Options.SizePolicy?
        /// Accepts a stream without a trailer, and a target with bytes that neither state has.
        package var overwrites = false
        package var undo: Replication.Undo?
        /// Reads the target again after the flush.
        package var verifies = false
        /// Where a delta from standard input is kept; `nil` for the usual place.
        package var spool: String?

        package init() {}
    }

    package struct Report: Sendable {
        package enum State: String, Sendable {
            /// The target was the base.
            case applied
            /// An earlier apply had been interrupted.
            case completed
            /// The target was the result before; nothing was written.
            case unchanged
            /// Nothing is known of the base, because the delta has no trailer.
            case overwritten
        }

        package var target: String
        package var state: State
        /// Bytes that were written, and zeroed.
        package var written = 0
        package var zeroed = 0
        package var undo: Replication.Report.Undo?
        /// Whether the target was read again and is the result; `nil` if it was not read.
        package var isVerified: Bool?
        /// Those from before the first write, and the others.
        package var warnings: [String] = []
        package var closingWarnings: [String] = []
        /// What failed after the first write.
        package var failure: ReplicationError?
        package var seconds = 0.0
    }

    private let delta: String
    private let operands: Operands
    private let selector: Selector
    private let options: Options
    private let control: Replication.Control
    private let events: @Sendable (Replication.Event) -> Void

    /// - Parameter delta: a file, or `-` for standard input.
    package init(
        _ delta: String, to target: Result<Location, WireError>, options: Options,
        control: Replication.Control, events: @escaping @Sendable (Replication.Event) -> Void
    ) throws(ReplicationError) {
        // A file is never a location on another host.
        let path = delta.hasPrefix("/") ? delta : "./\(delta)"
        operands = try Operands(.success(.local(.path(path))), target)
        guard case .local(let selector) = operands.target else {
            throw ReplicationError(
                .invalid, "\(operands.target): TARGET has to be a device of this machine",
                advice: "Send the delta there: ssh HOST blkferry apply - TARGET < DELTA")
        }
        self.delta = delta
        self.selector = selector
        self.options = options
        self.control = control
        self.events = events
    }

    private var name: String { delta == "-" ? "standard input" : delta }

    /// - Throws: if nothing was written; later failures are in the report.
    package func run() throws(ReplicationError) -> Report {
        var settings = Replication.Options()
        settings.undo = options.undo
        try settings.checkJournal(operands)
        let start = ContinuousClock.now
        do throws(IOError) {
            let bytes = try openDelta()
            let reader = try DeltaReader(bytes, name: name) { control.isCancelled }
            try checkConsent(reader)
            var report = try apply(reader, bytes)
            report.seconds = (ContinuousClock.now - start) / .seconds(1)
            return report
        } catch {
            throw ReplicationError(error)
        }
    }

    private func openDelta() throws(IOError) -> DeltaFileBytes {
        guard delta == "-" else { return try DeltaFileBytes(delta) }
        return try DeltaFileBytes(
            keeping: STDIN_FILENO, name: name, in: options.spool ?? temporaryDirectory()
        ) { control.isCancelled }
    }

    private func checkConsent(_ reader: DeltaReader) throws(IOError) {
        guard reader.statement == nil else { return }
        guard options.overwrites else {
            throw .refusal(
                .wrongKind, name,
                "it has no trailer of blkferry, so nothing proves that it fits the target",
                advice: "For an rbd diff of another program, say --overwrite; a delta of blkferry "
                    + "was truncated.")
        }
        events(.warning("\(name): it has no trailer, so its base is unknown and is not checked"))
        if let snapshot = reader.fromSnapshot {
            events(.warning("\(name): it starts from the snapshot \(snapshot)"))
        }
    }

    private func apply(_ reader: DeltaReader, _ bytes: DeltaFileBytes) throws(IOError) -> Report {
        let admitted = try admit(reader, bytes)
        for warning in admitted.warnings { events(.warning(warning)) }
        let state = try self.state(reader, admitted)
        var report = Report(target: "\(operands.target)", state: state)
        report.warnings = admitted.warnings
        let run = DeltaRun(
            reader, bytes, admitted, operands, options, state, isCancelled: { control.isCancelled })
        try run.run(&report)
        return report
    }

    /// The target, which is held from now on.
    ///
    /// Its content is compared with digests, so the gate does not judge it.
    private func admit(
        _ reader: DeltaReader, _ bytes: DeltaFileBytes
    ) throws(IOError) -> AdmittedTarget {
        guard let size = reader.size else {
            throw .refusal(.size, name, "it does not say how large its result is")
        }
        let path = try resolve(selector)
        do throws(Errno) { _ = try FileStatus(path: path) } catch {
            throw IOError("\(operands.target)", "open", error)
        }
        var facts = SourceFacts(
            name: name, size: size, content: .empty, logicalSector: nil, identity: nil)
        if delta != "-" { facts.identity = DeviceIdentity(bytes.fileStatus, path: delta) }
        var policy = GatePolicy(
            sizePolicy: options.sizePolicy.flatMap { SizePolicy(rawValue: $0.rawValue) })
        policy.ignoresContent = true
        let events = events
        return try SafetyGate.admit(
            selector, source: facts, policy: policy,
            volumes: LVMVolumeManager(isCancelled: { [control] in control.isCancelled }),
            patience: GatePatience(
                GatePatience.usual, isCancelled: { [control] in control.isCancelled },
                report: { events(.waiting($0)) }))
    }

    /// What the target is to the delta; reads it once.
    private func state(
        _ reader: DeltaReader, _ admitted: AdmittedTarget
    ) throws(IOError) -> Report.State {
        guard let statement = reader.statement else { return .overwritten }
        let (base, result) = (statement.base.size, statement.result.size)
        let size = admitted.sizeBefore
        let isPrefix = options.sizePolicy == .prefix || admitted.kind == .blockDevice
        guard size == base || size == result || (isPrefix && size > base) else {
            throw .refusal(
                .size, "\(operands.target)", "it has \(size) bytes, the base of the delta \(base)",
                advice: size > base ? "--size-policy prefix leaves the rest alone." : nil)
        }
        let check = DeltaCheck(
            reader, statement, target: admitted.device, hasResultSize: admitted.resizeTo == nil
        ) { control.isCancelled }
        switch try check.run() {
        case .result: return .unchanged
        case .base: return .applied
        case .between: return .completed
        case .unproven(let bytes, let first):
            let what =
                "\(bytes) bytes, the first at \(first), are neither the base's nor the result's"
            guard options.overwrites else {
                throw .refusal(
                    .changed, "\(operands.target)", what,
                    advice: "If they may be lost, say --overwrite; the rest fits the delta.")
            }
            events(.warning("\(operands.target): \(what), and are overwritten"))
            return .completed
        case .other:
            throw .refusal(
                .changed, "\(operands.target)",
                "it is not the base of the delta, \(statement.base.name), nor its result",
                advice: "The delta fits only a replica of that base; blkferry sync makes one.")
        }
    }
}
