// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
package import DeviceProbe
internal import Digests
internal import LinuxIO
package import SyncEngine

extension Replication {
    /// The results of a run, with sizes, offsets and lengths in bytes.
    public struct Report: Sendable {
        package let engine: SyncReport
        package let sourceFacts: SourceFacts
        public let action: Action
        /// The size before the run; 0 for a missing image.
        public let targetSize: Int
        /// The new size of the target, also in a dry run; `nil` if it stays.
        public let resizedTo: Int?
        /// Whether the target did not exist before; after a dry run it still does not.
        public let wasCreated: Bool
        /// Warnings from before the end of the run, one line each.
        public internal(set) var warnings: [String]
        /// Warnings from the end of the run, one line each.
        public internal(set) var closingWarnings: [String] = []
        /// Whether the backup of the GPT differs that `movesBackupTable` asks for; `false` after
        /// `synchronize` and `refresh`.
        public internal(set) var backupTableDiffers = false
        /// Why nothing was written: more would change than the user allows.
        public internal(set) var refusal: ReplicationError?
        /// What failed beside the comparison: the check of a sample, a write by another program, or
        /// the source's snapshot.
        public internal(set) var failures: [ReplicationError] = []
        /// The percentage of the target that differed before the first write, also estimated from a
        /// sample.
        ///
        /// It is `nil` if nothing was compared.
        public internal(set) var estimatedChange: Double?
        /// Why everything was compared instead of what snapshots show to have changed.
        ///
        /// It is `sync` if the run had no base to begin with, and one word of a fixed list else;
        /// `nil` if only changes were read, and after a comparison.
        public internal(set) var fullComparison: String?
        /// The windows that this sample and the earlier ones of its round have compared; `nil`
        /// unless a sample was compared.
        public internal(set) var round: Options.SampleRound?
        /// The same before this sample; a sample that continues it has the same windows.
        public internal(set) var roundBefore: Options.SampleRound?
        /// Whether `Control.stop` ended the run before its end.
        public internal(set) var wasStopped = false
        /// The time that opening both devices took.
        public let openSeconds: Double
        /// Bytes to and from the server, including headers; `nil` without a server.
        public let traffic: Traffic?
        /// The digest that both machines compared by, such as `gmac`; `nil` without a server.
        public let digest: String?
        /// The journal of what was overwritten; `nil` without one, or if nothing was overwritten.
        public internal(set) var undo: Undo?
        /// The use of the checkpoint; `nil` without one, and if nothing was written or compared.
        public internal(set) var checkpoint: CheckpointUse?
        /// The map of a failing source; `nil` without one.
        public internal(set) var mapfile: Mapfile?
        /// Whether the sizes prove that the two are not equal.
        public let sizesDiffer: Bool

        public struct Undo: Hashable, Sendable {
            public var journal: String
            /// Of the journal.
            public var bytes: Int
            /// `false` if the run went on when the journal had reached its limit.
            public var isUsable: Bool
            /// Whether the server of the target has it, under this name in its undo directory.
            public var isOnServer = false
        }

        public struct Mapfile: Hashable, Sendable {
            public var path: String
            /// Bytes of the source that this run and earlier ones have copied.
            public var finished: Int
            /// Bytes of sectors that cannot be read.
            public var bad: Int
            /// Other bytes that are missing, such as those that did not answer in time.
            public var open: Int
            /// Whether the run ended because too many reads had no answer.
            public var wasSilent: Bool
        }

        public struct Traffic: Hashable, Sendable {
            public var sent: Int
            public var received: Int
        }

        init(
            _ engine: SyncReport, _ action: Action, _ source: OpenedSource,
            _ target: AdmittedTarget, sizePolicy: Options.SizePolicy?, openSeconds: Double
        ) {
            self.engine = engine
            self.action = action
            self.openSeconds = openSeconds
            sourceFacts = source.facts
            targetSize = target.sizeBefore
            resizedTo = target.resizeTo
            wasCreated = target.wasCreated
            warnings = source.warnings + target.warnings
            traffic = (source.device.traffic ?? target.device.traffic).map {
                Traffic(sent: $0.sent, received: $0.received)
            }
            let remote = [source.device, target.device].lazy.compactMap { $0 as? any RemoteDevice }
            digest = remote.first?.digestMethod.name
            sizesDiffer =
                switch action {
                case .synchronize, .refresh: false
                case .dryRun: resizedTo != nil
                case .compare:
                    sizePolicy == .prefix
                        ? targetSize < source.facts.size : targetSize != source.facts.size
                }
        }
    }
}

extension Replication.Report {
    /// Whether everything was done and nothing was skipped.
    ///
    /// After `synchronize` and `refresh` the target is then the exact replica, flushed if that is
    /// possible, and read back if the user wanted it. After the other actions everything was
    /// compared.
    public var isDone: Bool {
        error == nil && !wasInterrupted && unreadable.isEmpty && (verifiedDifferent ?? 0) == 0
            && !(action.writes && targetChanged)
    }

    /// Whether written data is certain to be on the medium; a pdiffcopy server cannot be asked to
    /// flush.
    public var isFlushed: Bool { engine.isFlushed }

    /// The error that ended the run, or the first of writing, that of the flush, or the first of
    /// `failures`.
    public var error: ReplicationError? {
        if let refusal { return refusal }
        let first = engine.failure ?? engine.tally.writeErrors.first ?? engine.flushError
        return first.map { ReplicationError($0) } ?? failures.first
    }

    public var sourceSize: Int { sourceFacts.size }

    /// Whether the source had this size from the start; a stream may not say it.
    package var isSizeKnown: Bool { sourceFacts.isSizeKnown }

    /// Whether the run was cancelled or stopped before its end.
    public var wasInterrupted: Bool { engine.wasInterrupted }

    /// The unit in which differences are counted.
    public var blockSize: Int { engine.blockSize }

    /// Bytes of the source that were compared.
    public var compared: Int { engine.tally.compared }

    /// Bytes of the source that were not read, because the change map excludes them.
    public var unchanged: Int { engine.tally.unchanged }

    /// Compared bytes that differed.
    public var different: Int { engine.tally.different }

    public var differentBlocks: Int { engine.tally.differentBlocks }

    /// The share of compared bytes that are equal, 0 to 1; `nil` if none were.
    public var similarity: Double? { engine.similarity }

    /// Bytes of data written to the target.
    public var written: Int { engine.tally.written }

    /// Zeroed bytes of the target, written or not.
    public var zeroed: Int { engine.tally.zeroed }

    /// The first extents that differed, ascending.
    public var firstDifferences: [Range<Int>] { engine.firstDifferences.map(\.asRange) }

    /// Ranges of the source that could not be read and were skipped, ascending.
    public var unreadable: [Range<Int>] { engine.unreadableRanges.map(\.asRange) }

    /// Bytes that differed when the target was read back; `nil` if it was not.
    public var verifiedDifferent: Int? { engine.verification?.different }

    /// Whether another program wrote to the source during the run, so that the target may be a
    /// mixture.
    public var sourceChanged: Bool { engine.sourceChanged }

    /// Whether another program wrote to the target during the run, or had it open for writing
    /// during the last comparison.
    public var targetChanged: Bool { engine.targetChanged }

    /// The time for comparing and writing, the flush, and reading back.
    public var seconds: Double { engine.seconds.total }
}

extension ByteRange {
    fileprivate var asRange: Range<Int> { offset..<end }
}
