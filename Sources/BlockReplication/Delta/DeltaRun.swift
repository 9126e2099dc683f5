// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import DeltaFile
internal import DeviceProbe
internal import LinuxIO
internal import UndoJournal
internal import WireProtocol

/// Writes a delta to a target that was checked.
struct DeltaRun {
    private let reader: DeltaReader
    private let bytes: DeltaFileBytes
    private let admitted: AdmittedTarget
    private let operands: Operands
    private let options: DeltaTarget.Options
    private let state: DeltaTarget.Report.State
    private let isCancelled: () -> Bool

    init(
        _ reader: DeltaReader, _ bytes: DeltaFileBytes, _ admitted: AdmittedTarget,
        _ operands: Operands, _ options: DeltaTarget.Options, _ state: DeltaTarget.Report.State,
        isCancelled: @escaping () -> Bool
    ) {
        self.reader = reader
        self.bytes = bytes
        self.admitted = admitted
        self.operands = operands
        self.options = options
        self.state = state
        self.isCancelled = isCancelled
    }

    private var target: any BlockDevice { admitted.device }

    /// - Throws: if the run could not begin; later failures are in the report.
    func run(_ report: inout DeltaTarget.Report) throws(IOError) {
        let journal = try TargetJournal.of(admitted, operands, options.undo)
        let device = journal?.device ?? target
        do throws(IOError) {
            // The apply that wrote it may have been killed before the flush.
            if state == .unchanged { try device.flush() } else { try write(to: device, &report) }
            try check(&report)
        } catch {
            // What was written before is on the medium, if that is possible.
            if error.operation != "flush" { try? device.flush() }
            report.failure = ReplicationError(error)
        }
        if let journal {
            let (undo, warning) = journal.finish(isComplete: report.failure == nil)
            report.undo = undo.map { .init($0) }
            if let warning, report.failure?.message.contains(warning) != true {
                report.closingWarnings.append(warning)
            }
        }
        updateCaches(&report)
        device.release(isComplete: report.failure == nil)
    }

    private func write(
        to device: any BlockDevice, _ report: inout DeltaTarget.Report
    ) throws(IOError) {
        // Grow before the first write, and cut after the last.
        if let size = admitted.resizeTo, size > device.geometry.size {
            try device.resize(to: size)
        }
        let application = DeltaApplication(reader, target: device, unless: isCancelled)
        defer {
            report.written = application.written
            report.zeroed = application.zeroed
        }
        try application.run()
        try bytes.checkUnchanged()
        if let size = admitted.resizeTo, size < device.geometry.size {
            // The bytes that are cut off prove until now that an interrupted run belongs here.
            try device.flush()
            try device.resize(to: size)
        }
        try device.flush()
    }

    private func check(_ report: inout DeltaTarget.Report) throws(IOError) {
        try target.checkIdentity()
        if target.hasForeignWrites() || target.hadOtherWriters() {
            report.failure = ReplicationError(
                .different,
                "\(operands.target): check at the end: another program wrote to it during the run",
                advice: "Stop that program and run it again.")
            return
        }
        guard options.verifies, let statement = reader.statement else { return }
        let digest = try DeltaCheck.digest(
            of: target, size: statement.result.size, unless: isCancelled)
        report.isVerified = digest == statement.result.digest
        guard report.isVerified == false else { return }
        report.failure = ReplicationError(
            .different, "\(operands.target): verify: it reads back differently after the flush",
            advice: "Run it again; if it repeats, the device does not keep what is written.")
    }

    private func updateCaches(_ report: inout DeltaTarget.Report) {
        for relative in admitted.relatives {
            BlockSpecialFile.writeBackCache(of: relative, dropping: true)
        }
        let update = KernelPartitions.update(target, wasWritten: report.written + report.zeroed > 0)
        if let warning = update.warning { report.closingWarnings.append(warning) }
    }
}
