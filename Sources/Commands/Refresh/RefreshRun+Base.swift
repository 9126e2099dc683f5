// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import BlockReplication
internal import DeviceProbe
internal import LogicalVolumes
internal import SyncEngine

/// Finds out before the comparison what may be left unread.
extension RefreshRun {
    /// A verified base of the run.
    struct VerifiedBase {
        var changes: ChangeMap
        /// The target's change counter.
        var mark: String
    }

    /// Returns where the target may differ; `nil`, with a message, for a full comparison.
    func verified(
        _ base: LogicalVolume?, _ replication: Replication, _ identity: String
    ) -> VerifiedBase? {
        var findings = BaseFindings(
            target: target, identity: identity, source: read,
            sourceSize: replication.sourceFacts.size, base: base)
        while true {
            switch findings.decision {
            case .find(let finding):
                do throws(FallbackReason) { try find(finding, replication, &findings) } catch {
                    findings.failure = error
                }
            case .readOnly(let changes, let counter):
                console.note(
                    "\(base?.fullName ?? ""): \(changes.byteCount) of \(changes.size) bytes have "
                        + "changed since")
                return VerifiedBase(changes: changes, mark: counter)
            case .compareEverything(because: .noEarlierRun):
                console.note("full comparison: \(origin.fullName): no earlier run for \(target)")
                return nil
            case .compareEverything(let reason):
                // A cancelled run compares nothing more.
                if control.isCancelled { return nil }
                console.warning("falls back to a full comparison: \(reason.message(findings))")
                if let advice = reason.advice(findings) { console.status("  \(advice)\n") }
                return nil
            }
        }
    }

    /// Adds a finding.
    private func find(
        _ finding: BaseFindings.Finding, _ replication: Replication, _ findings: inout BaseFindings
    ) throws(FallbackReason) {
        switch finding {
        case .counter:
            findings.counter = try orFallBack { () throws(ReplicationError) in
                // The flush also writes out what other programs left in the page cache.
                if kind.isSync { try replication.flushTarget() }
                return try counter(of: replication)
            }
        case .changes(let base, let mapSource):
            do throws(ChangeMapError) {
                findings.changes = try read.changes(since: base, from: mapSource) {
                    control.isCancelled
                }
            } catch {
                throw FallbackReason(error)
            }
        case .sampleDigest(let seed, let size):
            findings.sampleDigest = try orFallBack { () throws(ReplicationError) in
                try replication.root(of: .target, seed: seed, size: size)
            }
        case .differences(let changes, let size):
            findings.differences = try orFallBack { () throws(ReplicationError) in
                try replication.sampleDifferences(size: size, oneIn: 384) {
                    !changes.overlaps(ByteRange($0.lowerBound, to: $0.upperBound))
                }
            }
        case .counterAtEnd:
            findings.counterAtEnd = try orFallBack { () throws(ReplicationError) in
                try counter(of: replication)
            }
        }
    }

    private func orFallBack<Result>(
        _ body: () throws(ReplicationError) -> Result
    ) throws(FallbackReason) -> Result {
        do throws(ReplicationError) { return try body() } catch {
            throw .failed(error.message, advice: nil)
        }
    }

    private func counter(
        of replication: Replication
    ) throws(ReplicationError) -> BaseFindings.Counter {
        guard let mark = try replication.targetMark(asFound: true) else {
            return .missing(reason: replication.reasonForNoMark)
        }
        return .value(mark)
    }
}
