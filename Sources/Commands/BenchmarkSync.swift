// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockReplication
internal import DeviceProbe
internal import SyncEngine

/// What one sync of a benchmark came to.
struct BenchmarkSync {
    let report: Replication.Report
    /// What the source was like.
    let source: SourceFacts
    /// What was said when the devices were opened, and what the run itself came to say.
    let warnings: [String]

    /// What was sent and received, headers included; `nil` where no server took part.
    var wireBytes: Int? { report.traffic.map { $0.sent + $0.received } }

    /// Makes the target equal to the source, from opening both to releasing them.
    ///
    /// - Parameters:
    ///   - source: where it is read.
    ///   - target: what is made equal to it.
    ///   - options: how.
    ///   - control: to watch and to cancel the run.
    /// - Throws: a refusal, an error of a device or of the network, or the interruption.
    init(
        _ source: String, _ target: String, _ options: Replication.Options, _ control: RunControl
    ) throws(CommandFailure) {
        let replication: Replication
        do throws(ReplicationError) {
            replication = try Replication(
                .synchronize, from: source, to: target, options: options, control: control
            ) { _ in }
        } catch {
            throw CommandFailure(error)
        }
        let report = replication.run()
        let conclusion = Conclusion(
            report, kind: .sync, source: source, target, endsWithDifferent: false)
        if let failure = conclusion.errors.last { throw failure }
        self.report = report
        self.source = replication.sourceFacts
        warnings = report.warnings + conclusion.warnings
    }
}
