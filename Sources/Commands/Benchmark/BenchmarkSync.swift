// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockReplication
internal import DeviceProbe
internal import SyncEngine

/// The result of one sync of a benchmark.
struct BenchmarkSync {
    let report: Replication.Report
    let source: SourceFacts
    /// Warnings of opening the devices and of the run.
    let warnings: [String]

    /// Bytes sent and received, including headers; `nil` without a server.
    var wireBytes: Int? { report.traffic.map { $0.sent + $0.received } }

    /// Makes the target equal to the source, from opening both to releasing them.
    init(
        _ operands: Operands, _ options: Replication.Options, _ control: RunControl
    ) throws(CommandFailure) {
        let replication: Replication
        do throws(ReplicationError) {
            replication = try Replication(
                .synchronize, operands, options: options, control: control
            ) { _ in }
        } catch {
            throw CommandFailure(error)
        }
        let report = replication.run()
        let result = RunResult(
            report, kind: .sync, source: replication.source, replication.target,
            endsWithDifferent: false)
        if let failure = result.errors.last { throw failure }
        self.report = report
        self.source = replication.sourceFacts
        warnings = report.warnings + result.warnings
    }
}
