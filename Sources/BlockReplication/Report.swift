// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockClient
internal import BlockDevices
internal import DeviceProbe
internal import LinuxIO
package import SyncEngine

extension Replication {
    /// What a run found and did, and how it ended; sizes, offsets and lengths in bytes.
    public struct Report: Sendable {
        package let engine: SyncReport
        public let action: Action
        public let sourceSize: Int
        /// Before the run; 0 for an image that was not there.
        public let targetSize: Int
        /// The size that the target was given, or in a dry run would be; `nil` where it stays.
        public let resizedTo: Int?
        /// Whether the target is an image that was not there before; in a dry run, that is not.
        public let wasCreated: Bool
        /// What was to be said about the devices before the run, one line each.
        public let warnings: [String]
        /// What was to be said at its end, one line each.
        public internal(set) var closingWarnings: [String] = []
        /// Time that it took to open both devices.
        public let openSeconds: Double
        /// Bytes to and from the server, headers included; `nil` where none took part.
        public let traffic: Traffic?
        /// The sizes are such that the two cannot be equal, whatever they hold.
        public let sizesDiffer: Bool

        public struct Traffic: Hashable, Sendable {
            public var sent: Int
            public var received: Int
        }

        init(
            _ engine: SyncReport, _ action: Action, _ source: SourceEndpoint,
            _ target: TargetEndpoint, sizePolicy: Options.SizePolicy?, openSeconds: Double
        ) {
            self.engine = engine
            self.action = action
            self.openSeconds = openSeconds
            sourceSize = source.facts.size
            targetSize = target.sizeBefore
            resizedTo = target.resizedTo
            wasCreated = target.wasCreated
            warnings = source.warnings + target.warnings
            let remote = [source.device, target.device].lazy.compactMap { $0 as? any RemoteDevice }
            traffic = remote.first.map {
                let (sent, received) = $0.traffic
                return Traffic(sent: sent, received: received)
            }
            sizesDiffer =
                switch action {
                case .synchronize: false
                case .dryRun: resizedTo != nil
                case .compare:
                    sizePolicy == .prefix ? targetSize < sourceSize : targetSize != sourceSize
                }
        }
    }
}

extension Replication.Report {
    /// Whether all of it was done and nothing was left out: after `synchronize` the target is the
    /// exact replica, flushed where the target can be, and read back where that was asked for;
    /// after the other actions everything was compared.
    public var isDone: Bool {
        error == nil && !wasInterrupted && unreadable.isEmpty && (verifiedDifferent ?? 0) == 0
    }

    /// Whether what was written is known to be on the medium; a server of pdiffcopy cannot be asked
    /// to flush.
    public var isFlushed: Bool { engine.isFlushed }

    /// What was in the way of it; the other errors of writing are of the same kind.
    public var error: ReplicationError? {
        let first = engine.failure ?? engine.tally.writeErrors.first ?? engine.flushError
        return first.map { ReplicationError($0) }
    }

    /// The run was cancelled before all was done.
    public var wasInterrupted: Bool { engine.wasInterrupted }

    /// The unit in which differences are counted.
    public var blockSize: Int { engine.blockSize }

    /// How much of the source was compared.
    public var compared: Int { engine.tally.compared }

    /// How much of the source was not read, since a change map told that it is equal.
    public var unchanged: Int { engine.tally.unchanged }

    /// How much of what was compared differed.
    public var different: Int { engine.tally.different }

    public var differentBlocks: Int { engine.tally.differentBlocks }

    /// 0 to 1; `nil` when nothing was compared.
    public var similarity: Double? { engine.similarity }

    /// Data that was written to the target.
    public var written: Int { engine.tally.written }

    /// What was made zeros on the target, written or not.
    public var zeroed: Int { engine.tally.zeroed }

    /// The first extents that differed, ascending.
    public var firstDifferences: [Range<Int>] { engine.firstDifferences.map(\.asRange) }

    /// What of the source could not be read and was left out, ascending.
    public var unreadable: [Range<Int>] { engine.unreadableRanges.map(\.asRange) }

    /// How much was different when it was read back; `nil` when it was not.
    public var verifiedDifferent: Int? { engine.verification?.different }

    /// Somebody wrote to the source while it was read: the target may be a mixture.
    public var sourceChanged: Bool { engine.sourceChanged }

    /// Time that comparing and writing took, the flush, and reading back.
    public var seconds: Double { engine.seconds.total }
}

extension ByteRange {
    fileprivate var asRange: Range<Int> { offset..<end }
}
