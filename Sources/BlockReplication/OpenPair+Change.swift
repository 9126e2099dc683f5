// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import DeviceProbe
internal import LinuxIO
internal import SyncEngine
internal import Synchronization

/// Determines the share of a target that a run would change, before the first write.
///
/// Clones of a template have the same UUIDs, so the gate takes the disk of one for a replica of
/// another. Only an unusual share shows the mistake.
extension OpenPair {
    struct ExpectedChange {
        /// 0 to 1; `nil` if nothing was compared.
        var share: Double?
        /// The comparison, if it ends the run.
        var ending: SyncReport?
        var refusal: ReplicationError?
    }

    /// A larger change is unusual for a replica.
    private static let unusualShare = 0.5

    /// Compares everything if the user set a limit, or else a sample if the target is a replica.
    ///
    /// - Parameters:
    ///   - changes: the ranges that may differ; `nil` for all.
    ///   - isResumed: whether an earlier run has done the others, so that the rest may well differ.
    func expectedChange(_ changes: [ByteRange]?, isResumed: Bool = false) -> ExpectedChange {
        guard action.writes, !targetEnd.wasCreated else { return ExpectedChange() }
        guard let limit = options.maximumChange else {
            return isResumed ? ExpectedChange() : sampledChange(changes)
        }
        var comparing = engineOptions
        comparing.changes = changes
        let result = SyncEngine.compare(
            source: comparedDevices.source, target: comparedDevices.target, options: comparing,
            control: control, phase: .compare)
        guard result.failure == nil, !result.wasInterrupted else {
            return ExpectedChange(ending: result)
        }
        let share = self.share(of: result)
        var change = ExpectedChange(share: share)
        if let refusal = refusal(share, limit) {
            change.ending = result
            change.refusal = refusal
        } else {
            warn(of: share, "\(Self.percent(share)) % of it differ from \(source)")
        }
        return change
    }

    /// - Parameters:
    ///   - share: 0 to 1.
    ///   - limit: in percent.
    func refusal(_ share: Double, _ limit: Double) -> ReplicationError? {
        guard share * 100 > limit else { return nil }
        var error = ReplicationError(
            .refused,
            "\(target): refused: \(Self.percent(share)) % of it differ from \(source), "
                + "and --max-change allows \(Self.number(limit)) %",
            advice: "Make sure that it is the replica of this source; then allow more, once.")
        error.cause = "max-change"
        return error
    }

    /// The share that differs or would be added or cut, 0 to 1.
    func share(of result: SyncReport) -> Double {
        let before = targetEnd.sizeBefore
        let after = targetEnd.resizeTo ?? sourceEnd.facts.size
        // Bytes that a server already added were compared.
        let added = max(0, sourceEnd.facts.size - targetEnd.device.geometry.size)
        let cut = targetEnd.resizeTo == nil ? 0 : max(0, before - after)
        let whole = sourceEnd.facts.size + cut
        return Double(result.tally.different + added + cut) / Double(max(1, whole))
    }

    /// Warns if more than half of a replica differed and no earlier warning said so.
    func warning(after expected: ExpectedChange, _ result: SyncReport) -> String? {
        guard action.writes, targetEnd.isReplica, !options.wholeFile,
            (expected.share ?? 0) <= Self.unusualShare
        else { return nil }
        // After a lost session the last pass may end before it has compared what the others found.
        var result = result
        let known = max(result.tally.different, result.tally.differentInAllPasses)
        result.tally.different = min(known, result.size)
        let share = share(of: result)
        guard share > Self.unusualShare else { return nil }
        return "\(target): \(Self.percent(share)) % of it differed from \(source) before the run; "
            + Self.hint
    }

    private static let hint =
        "it may have been the replica of another machine with the same UUIDs (see --max-change)"

    private func sampledChange(_ changes: [ByteRange]?) -> ExpectedChange {
        let size = min(sourceEnd.facts.size, targetEnd.sizeBefore)
        // A stream cannot be sampled.
        guard targetEnd.isReplica, size > 0, stream == nil else { return ExpectedChange() }
        // All other bytes are equal.
        if let changes, changes.reduce(0, { $0 + $1.length }) < size / 2 { return ExpectedChange() }
        guard let result = try? sample(size: size, oneIn: 8, atMost: 64), result.tally.compared > 0
        else { return ExpectedChange() }
        let share = Double(result.tally.different) / Double(result.tally.compared)
        warn(
            of: share,
            "about \(Int((share * 100).rounded())) % of it differ from \(source), as a sample shows"
        )
        return ExpectedChange(share: share)
    }

    private func warn(of share: Double, _ text: String) {
        guard targetEnd.isReplica, share > Self.unusualShare else { return }
        let warning =
            "\(target): \(text); it may be the replica of another machine with the same UUIDs"
        earlyWarnings.withLock { $0.append(warning) }
        events(.warning(warning))
    }

    /// Rounds up to two decimals, so that a share above a limit is never shown as the limit.
    private static func percent(_ share: Double) -> String {
        number((share * 10000).rounded(.up) / 100)
    }

    private static func number(_ value: Double) -> String {
        value == value.rounded() ? "\(Int(value))" : "\(value)"
    }
}
