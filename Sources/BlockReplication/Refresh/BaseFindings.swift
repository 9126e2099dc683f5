// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import LinuxIO
internal import LogicalVolumes

/// What a run knows about its base: a snapshot of the source that the target may be the replica of.
///
/// `decision` answers whether the run may leave most of the target unread. It is a pure function
/// of the findings. The run adds one finding after the other, because each one costs I/O.
struct BaseFindings: Sendable {
    /// The target's persistent change counter.
    enum Counter: Hashable, Sendable {
        /// The target has none; the reason, if it is known.
        case missing(reason: String?)
        case value(TargetMark)
    }

    /// What `decision` may ask for.
    enum Finding: Hashable, Sendable {
        /// The target's change counter, after a flush; a server's from before it enlarged the target.
        case counter
        /// Where the source differs from the base.
        case changes(since: LogicalVolume, ChangeMap.Source)
        /// The digest of samples of the target, from this many bytes, at the places that the seed
        /// determines.
        case sampleDigest(seed: UInt64, size: Int)
        /// Samples, from this many bytes, in which source and target differ outside of the changes.
        case differences(outside: ChangeMap, size: Int)
        /// The target's change counter after all other findings, which take time.
        case counterAtEnd
    }

    enum Decision: Hashable, Sendable {
        case find(Finding)
        case compareEverything(because: FallbackReason)
        /// Outside of the changes, the target equals the source; its change counter had this text.
        case readOnly(ChangeMap, counter: String)
    }

    /// The target as the user named it.
    let target: String
    /// The target's identity, see `OpenPair.targetIdentity()`.
    let identity: String
    /// The volume or snapshot that the run reads.
    let source: LogicalVolume
    /// Bytes of the opened source.
    let sourceSize: Int
    /// `nil` if no run has left one.
    let base: LogicalVolume?

    var counter: Counter?
    var changes: ChangeMap?
    /// Hexadecimal.
    var sampleDigest: String?
    /// Ascending byte ranges.
    var differences: [Range<Int>]?
    var counterAtEnd: Counter?
    /// Why a finding could not be determined.
    var failure: FallbackReason?

    init(
        target: String, identity: String, source: LogicalVolume, sourceSize: Int,
        base: LogicalVolume?
    ) {
        self.target = target
        self.identity = identity
        self.source = source
        self.sourceSize = sourceSize
        self.base = base
    }

    /// Whether most of the target may be left unread, or what else must be found out first.
    var decision: Decision {
        guard let base else { return .compareEverything(because: .noEarlierRun) }
        guard let record = base.replica(on: identity) else {
            return .compareEverything(because: .unknownReplica)
        }
        guard source.isReadOnly || !source.isInUse else {
            return .compareEverything(because: .sourceInUse)
        }
        if let failure { return .compareEverything(because: failure) }

        guard let counter else { return .find(.counter) }
        if let reason = Self.doubt(counter, since: record, .written) {
            return .compareEverything(because: reason)
        }
        let mapSource: ChangeMap.Source
        do throws(IOError) {
            mapSource = try source.changeMapSource(since: base, mappedThen: record.mapped)
        } catch {
            return .compareEverything(because: FallbackReason(error))
        }
        guard let changes else { return .find(.changes(since: base, mapSource)) }
        guard changes.size == sourceSize else { return .compareEverything(because: .resized) }
        guard let sampleDigest else {
            return .find(.sampleDigest(seed: record.seed, size: base.size))
        }
        guard sampleDigest == record.root else { return .compareEverything(because: .noReplica) }
        guard let differences else {
            return .find(.differences(outside: changes, size: min(base.size, changes.size)))
        }
        if let first = differences.first {
            return .compareEverything(because: .differs(at: first.lowerBound))
        }
        guard let counterAtEnd else { return .find(.counterAtEnd) }
        if let reason = Self.doubt(counterAtEnd, since: record, .writtenMeanwhile) {
            return .compareEverything(because: reason)
        }
        return .readOnly(changes, counter: record.mark)
    }

    /// Why another program may have written to the target since the record was made.
    private static func doubt(
        _ counter: Counter, since record: ReplicaRecord, _ written: FallbackReason
    ) -> FallbackReason? {
        switch counter {
        case .missing(let reason): .noCounter(reason)
        case .value(let mark): mark.isUnchanged(since: record.mark) ? nil : written
        }
    }
}

/// Why a run that has a base compares everything.
enum FallbackReason: Hashable, Sendable {
    case noEarlierRun
    /// The base has no valid record of this target.
    case unknownReplica
    /// The source is not read-only, and a program has it open.
    case sourceInUse
    /// The target has no persistent change counter; the reason, if it is known.
    case noCounter(String?)
    /// Since the record was made.
    case written
    /// Since the run began.
    case writtenMeanwhile
    /// The size of the source changed since the base was made.
    case resized
    /// The target's samples are not those of the record.
    case noReplica
    /// Source and target differ at a byte outside of the changes.
    case differs(at: Int)
    /// A finding could not be determined.
    case failed(String, advice: String?)

    init(_ error: IOError) { self = .failed("\(error)", advice: error.advice) }

    /// One word for programs (docs/json.md).
    var word: String {
        switch self {
        case .noEarlierRun: "no-earlier-run"
        case .unknownReplica: "unknown-replica"
        case .sourceInUse: "source-in-use"
        case .noCounter: "no-change-counter"
        case .written, .writtenMeanwhile: "target-written"
        case .resized: "source-resized"
        case .noReplica, .differs: "not-the-replica"
        case .failed: "failed"
        }
    }

    /// One line that names the object and the reason.
    func message(_ findings: BaseFindings) -> String {
        let (source, target) = (findings.source.fullName, findings.target)
        let base = findings.base?.fullName ?? ""
        return switch self {
        case .noEarlierRun: "no earlier run for \(target)"
        case .unknownReplica: "\(base): it is not known whether \(target) is its replica"
        case .sourceInUse: "\(source): it is in use, and may change during the run"
        case .noCounter(let reason): Self.missingCounter(of: target, reason)
        case .written:
            "\(target): another program may have written to it since it became the replica of \(base)"
        case .writtenMeanwhile: "\(target): another program may have written to it during the run"
        case .resized: "\(source): its size has changed during the run"
        case .noReplica: "\(target): it is not the replica of \(base)"
        case .differs(let place):
            "\(target): it differs at \(place), where nothing has changed since \(base)"
        case .failed(let reason, _): reason
        }
    }

    static func missingCounter(of target: String, _ reason: String?) -> String {
        "\(target) has no persistent change counter" + (reason.map { ": \($0)" } ?? "")
    }

    func advice(_ findings: BaseFindings) -> String? {
        switch self {
        case .failed(_, let advice): advice
        case .sourceInUse where findings.source.origin == nil: "--snapshot reads a snapshot of it."
        case .sourceInUse:
            "lvchange --permission r \(findings.source.fullName) makes it read-only."
        default: nil
        }
    }
}
