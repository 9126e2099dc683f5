// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices

/// What a run that ended early has done, and how the next one knows that it still holds.
struct CheckpointRecord: Codable, Hashable, Sendable {
    /// A source or target.
    struct Side: Codable, Hashable, Sendable {
        /// As the user named it.
        var name: String
        /// Words of `Endpoint.identity`.
        var identity: String
        /// Bytes.
        var size: Int
        /// The boot id of the machine that has the device.
        var boot: String
        /// The text of its persistent change counter.
        ///
        /// Of a source from before anything of it was read; of a target from after the flush.
        var counter: String
    }

    /// The options on which it depends what is in the target at the end.
    struct Settings: Codable, Hashable, Sendable {
        var wholeFile: Bool
        var sizePolicy: String?
        var movesBackupTable: Bool

        init(_ options: Replication.Options) {
            wholeFile = options.wholeFile
            sizePolicy = options.sizePolicy?.rawValue
            movesBackupTable = options.movesBackupTable
        }
    }

    /// A sample of what was done, as it was on the target.
    struct Sample: Codable, Hashable, Sendable {
        /// Determines the places.
        var seed: UInt64
        /// See `OpenPair.sampleDigest(of:at:)`.
        var digest: String
    }

    var source: Side
    var target: Side
    var settings: Settings
    var sample: Sample
    /// Offset and length of each range that is done, in bytes, ascending and apart.
    private var done: [Int]

    init(
        source: Side, target: Side, settings: Settings, sample: Sample, done: [ByteRange]
    ) {
        self.source = source
        self.target = target
        self.settings = settings
        self.sample = sample
        self.done = done.flatMap { [$0.offset, $0.length] }
    }

    /// The ranges that are done, ascending and apart; `nil` if the list is no such list.
    var doneRanges: [ByteRange]? {
        guard done.count % 2 == 0 else { return nil }
        var ranges: [ByteRange] = []
        var end = 0
        for index in stride(from: 0, to: done.count, by: 2) {
            let (offset, length) = (done[index], done[index + 1])
            guard offset >= end, offset <= source.size, length > 0,
                length <= source.size - offset
            else { return nil }
            end = offset + length
            ranges.append(ByteRange(offset: offset, length: length))
        }
        return ranges
    }
}

/// Random places of what was done.
///
/// Together the two samples are at most 5 % of it.
enum DoneSample {
    /// The places whose digest is in the checkpoint.
    static func kept(in done: [ByteRange], size: Int, seed: UInt64) -> [ByteRange] {
        places(in: done, unit: SamplePlan.region, size: size, seed: seed) { min($0 / 80, 16) }
    }

    /// The places that the next run compares; none if so little was done that one is too many.
    ///
    /// - Parameter unit: bytes of the engine's regions.
    static func fresh(in done: [ByteRange], unit: Int, size: Int, seed: UInt64) -> [ByteRange] {
        places(in: done, unit: unit, size: size, seed: seed) { min($0 * 3 / 80, 1024) }
    }

    /// - Parameter count: the number of places, of a number of units that are done completely.
    private static func places(
        in done: [ByteRange], unit: Int, size: Int, seed: UInt64, _ count: (Int) -> Int
    ) -> [ByteRange] {
        let units = done.compactMap { range -> Range<Int>? in
            let first = (range.offset + unit - 1) / unit
            let end = range.end == size ? (range.end + unit - 1) / unit : range.end / unit
            return first < end ? first..<end : nil
        }
        let total = units.reduce(0) { $0 + $1.count }
        let wanted = count(total)
        var chosen: Set<Int> = []
        var generator = SplitMix64(seed: seed)
        while chosen.count < wanted {
            chosen.insert(Int.random(in: 0..<total, using: &generator))
        }
        var places: [ByteRange] = []
        var (list, before) = (units[...], 0)
        for number in chosen.sorted() {
            while let first = list.first, number - before >= first.count {
                before += first.count
                list.removeFirst()
            }
            guard let first = list.first else { break }
            let start = (first.lowerBound + number - before) * unit
            places.append(ByteRange(start, to: min(start + unit, size)))
        }
        return places
    }
}

/// A source or target as a run finds it.
struct CheckpointSide: Sendable {
    var name: String
    var identity: String
    /// Bytes.
    var size: Int
    /// The boot id of its machine, and its persistent change counter; `nil` if it has none.
    var counter: (boot: String, mark: TargetMark)?
    /// Why it has none; `nil` if that is unknown.
    var reasonForNone: String?

    /// As a checkpoint keeps it; `nil` without a counter.
    var record: CheckpointRecord.Side? {
        counter.map {
            CheckpointRecord.Side(
                name: name, identity: identity, size: size, boot: $0.boot, counter: $0.mark.text)
        }
    }

    var messageForNone: String { FallbackReason.missingCounter(of: name, reasonForNone) }
}

/// Why a run with a checkpoint compares everything.
enum CheckpointDoubt: Hashable, Sendable {
    /// A run was killed, or the machine failed.
    case unfinished
    case damaged(String)
    case otherVersion
    case otherPair(String)
    case otherOptions
    case resized(String)
    case restarted(String)
    case noCounter(String)
    case written(String)
    /// Less was done than a sample needs.
    case tooLittle
    /// The kept sample differs.
    case changed(String)
    case differs(String, at: Int)
    case failed(String)

    /// One word for programs (docs/json.md).
    var word: String {
        switch self {
        case .unfinished: "unfinished"
        case .damaged: "damaged"
        case .otherVersion: "other-version"
        case .otherPair: "other-pair"
        case .otherOptions: "other-options"
        case .resized: "resized"
        case .restarted: "restarted"
        case .noCounter: "no-change-counter"
        case .written: "written"
        case .tooLittle: "too-little"
        case .changed, .differs: "not-the-replica"
        case .failed: "failed"
        }
    }

    var message: String {
        switch self {
        case .unfinished: "the last run with this checkpoint was killed"
        case .damaged(let reason): "it is damaged: \(reason)"
        case .otherVersion: "it is of another version of blkferry"
        case .otherPair(let pair): "it is that of \(pair)"
        case .otherOptions:
            "that run had other options (--whole-file, --size-policy or --move-backup-gpt)"
        case .resized(let name): "\(name) has another size than then"
        case .restarted(let name): "the machine of \(name) was restarted since"
        case .noCounter(let message): message
        case .written(let name): "another program may have written to \(name) since"
        case .tooLittle: "too little was done"
        case .changed(let name): "\(name) is not what that run has left"
        case .differs(let name, let place):
            "\(name) differs at \(place), where that run has made it equal"
        case .failed(let reason): reason
        }
    }
}

extension CheckpointRecord {
    /// Why what it says may not hold any more; `nil` if both change counters prove that it does.
    func doubt(
        _ source: CheckpointSide, _ target: CheckpointSide, _ settings: Settings
    ) -> CheckpointDoubt? {
        let sides = [(self.source, source), (self.target, target)]
        guard sides.allSatisfy({ $0.identity == $1.identity }) else {
            return .otherPair("\(self.source.name) and \(self.target.name)")
        }
        guard settings == self.settings else { return .otherOptions }
        for (then, now) in sides {
            guard let (boot, mark) = now.counter else { return .noCounter(now.messageForNone) }
            guard then.boot == boot else { return .restarted(now.name) }
            guard then.size == now.size else { return .resized(now.name) }
            guard mark.isUnchanged(since: then.counter) else { return .written(now.name) }
        }
        return nil
    }
}
