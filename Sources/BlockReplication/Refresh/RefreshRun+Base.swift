// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import DeviceProbe
internal import LinuxIO
internal import LogicalVolumes
internal import SyncEngine

/// Finds out before the comparison what may be left unread.
extension RefreshRun {
    /// Returns where the target may differ, and its change counter; or, with a message, the reason
    /// for a full comparison.
    func verified(
        _ base: LogicalVolume?, _ pair: OpenPair, _ identity: String
    ) -> ((changes: ChangeMap, counter: String)?, FallbackReason?) {
        var findings = BaseFindings(
            target: job.target, identity: identity, source: read,
            sourceSize: pair.sourceEnd.facts.size, base: base)
        while true {
            switch findings.decision {
            case .find(let finding): find(finding, pair, &findings)
            case .readOnly(let changes, let counter):
                job.events(
                    .note(
                        "\(base?.fullName ?? ""): \(changes.byteCount) of \(changes.size) bytes "
                            + "have changed since"))
                return ((changes, counter), nil)
            case .compareEverything(because: .noEarlierRun):
                job.events(
                    .note("full comparison: \(origin.fullName): no earlier run for \(job.target)"))
                return (nil, .noEarlierRun)
            case .compareEverything(let reason):
                // A cancelled run compares nothing more.
                if job.control.isCancelled { return (nil, reason) }
                job.events(
                    .warning("falls back to a full comparison: \(reason.message(findings))"))
                if let advice = reason.advice(findings) { job.events(.advice(advice)) }
                return (nil, reason)
            }
        }
    }

    /// Adds a finding, or the reason why it could not be determined.
    private func find(
        _ finding: BaseFindings.Finding, _ pair: OpenPair, _ findings: inout BaseFindings
    ) {
        do throws(ReplicationError) {
            switch finding {
            case .counter:
                // The flush also writes out what other programs left in the page cache.
                if job.action.writes { try pair.flushTarget() }
                findings.counter = try counter(of: pair)
            case .changes(let base, let mapSource):
                do throws(IOError) {
                    findings.changes = try read.changes(since: base, from: mapSource) {
                        job.control.isCancelled
                    }
                } catch {
                    findings.failure = FallbackReason(error)
                }
            case .sampleDigest(let seed, let size):
                findings.sampleDigest = try pair.root(of: .target, seed: seed, size: size)
            case .differences(let changes, let size):
                findings.differences = try pair.sampleDifferences(size: size, oneIn: 384) {
                    !changes.overlaps(ByteRange($0.lowerBound, to: $0.upperBound))
                }
            case .counterAtEnd:
                findings.counterAtEnd = try counter(of: pair)
            }
        } catch {
            findings.failure = .failed(error.message, advice: nil)
        }
    }

    private func counter(of pair: OpenPair) throws(ReplicationError) -> BaseFindings.Counter {
        guard let mark = try pair.targetMark(asFound: true) else {
            return .missing(reason: pair.reasonForNoMark)
        }
        return .value(mark)
    }
}
