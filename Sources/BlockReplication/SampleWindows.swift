// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices

extension Replication.Options {
    /// A part of the devices that a comparison reads, in windows at random places.
    public struct Sample: Hashable, Sendable {
        /// Percent of the windows, more than 0 and at most 100.
        public var percent: Double
        /// What earlier samples have compared: `Report.round` of the last one that found no
        /// difference.
        public var round: SampleRound?

        public init(percent: Double, continuing round: SampleRound? = nil) {
            self.percent = percent
            self.round = round
        }
    }

    /// Samples that together compare each window once, in an order that the seed determines.
    public struct SampleRound: Hashable, Codable, Sendable {
        public var seed: UInt64
        /// Windows of the devices.
        public var windows: Int
        /// Windows, from the start of the order, that have been compared.
        public var compared: Int

        /// The share of the windows that have been compared, 0 to 1.
        public var share: Double { Double(compared) / Double(windows) }
    }
}

/// The windows of a sample: the next ones of its round, and the first and the last window of the
/// devices, which have the partition tables.
struct SampleWindows {
    /// In bytes, ascending, apart.
    let ranges: [ByteRange]
    /// The round without these windows.
    let before: Replication.Options.SampleRound
    /// The round with these windows.
    let round: Replication.Options.SampleRound

    /// Bytes of a window of devices up to 1 TiB.
    static let smallestWindow = 1 << 20
    /// A larger device has larger windows, so that their order needs only some MiB of memory.
    static let mostWindows = 1 << 20

    /// A round that is over, or one of another size, is not continued.
    ///
    /// - Parameter size: bytes of the devices, at least 1.
    init(_ sample: Replication.Options.Sample, size: Int) {
        var window = Self.smallestWindow
        while (size - 1) / window >= Self.mostWindows { window *= 2 }
        let count = (size - 1) / window + 1
        var round =
            sample.round.flatMap { $0.windows == count && (0..<count) ~= $0.compared ? $0 : nil }
            ?? .init(seed: .random(in: 0 ... .max), windows: count, compared: 0)
        before = round
        var generator = SplitMix64(seed: round.seed)
        let order = (0..<count).shuffled(using: &generator)
        let wanted = Int((Double(count) * sample.percent / 100).rounded(.up))
        let next = order[round.compared...].prefix(max(1, wanted))
        round.compared += next.count
        self.round = round
        var ranges: [ByteRange] = []
        for index in Set(next + [0, count - 1]).sorted() {
            let start = index * window
            let length = min(window, size - start)
            if let last = ranges.last, last.end == start {
                ranges[ranges.count - 1].length += length
            } else {
                ranges.append(ByteRange(offset: start, length: length))
            }
        }
        self.ranges = ranges
    }
}
