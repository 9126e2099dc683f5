// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import Testing

@testable import BlockReplication

@Suite struct SampleWindowsTests {
    typealias Sample = Replication.Options.Sample
    typealias Round = Replication.Options.SampleRound

    private static let window = SampleWindows.smallestWindow

    private func windows(_ ranges: [ByteRange]) -> Set<Int> {
        Set(ranges.flatMap { $0.pieces(of: Self.window).map { $0.offset / Self.window } })
    }

    @Test(arguments: [1, 512, 1 << 20, (1 << 20) + 1, 999 << 20, (1 << 40) + 512, Int.max - 511])
    func `the ranges ascend, are apart, and have both ends of the devices`(size: Int) throws {
        let ranges = SampleWindows(Sample(percent: 0.01), size: size).ranges
        #expect(ranges.first?.offset == 0 && ranges.last?.end == size)
        #expect(zip(ranges, ranges.dropFirst()).allSatisfy { $0.end < $1.offset })
        #expect(ranges.allSatisfy { !$0.isEmpty })
    }

    @Test(arguments: [(100, 4.0, 25), (101, 4, 21), (3, 1, 3), (1000, 0.1, 1000), (10, 100, 1)])
    func `the samples of a round together have each window, and each one as often as the others`(
        count: Int, percent: Double, samples: Int
    ) throws {
        var round: Round?
        var times = [Int](repeating: 0, count: count)
        for _ in 0..<samples {
            let sample = SampleWindows(
                Sample(percent: percent, continuing: round), size: count * Self.window - 1)
            round = sample.round
            for window in windows(sample.ranges) { times[window] += 1 }
        }
        #expect(round?.compared == count && round?.share == 1)
        // The two ends are in each sample.
        #expect(times.first == samples && times.last == samples)
        #expect(times.dropFirst().dropLast().allSatisfy { $0 == 1 })
    }

    @Test func `a sample has its share of the windows, and another round has others`() {
        let size = 1000 * Self.window
        let samples = (0..<20).map { _ in
            windows(SampleWindows(Sample(percent: 5), size: size).ranges)
        }
        #expect(samples.allSatisfy { (50...52) ~= $0.count })
        #expect(Set(samples).count == 20)
        // By chance 20 samples of 5 % have 64 % of all windows; in 20 that are alike it is 5 %.
        #expect(samples.reduce(Set()) { $0.union($1) }.count > 550)
    }

    @Test func `a round that is over, or of devices of another size, is not continued`() {
        let size = 100 * Self.window
        for round in [
            Round(seed: 1, windows: 100, compared: 100), Round(seed: 1, windows: 99, compared: 10),
            Round(seed: 1, windows: 100, compared: -1),
        ] {
            let next = SampleWindows(Sample(percent: 10, continuing: round), size: size).round
            #expect(next.compared == 10 && next.windows == 100 && next.seed != 1)
        }
        let round = Round(seed: 1, windows: 100, compared: 95)
        let next = SampleWindows(Sample(percent: 10, continuing: round), size: size).round
        #expect(next == Round(seed: 1, windows: 100, compared: 100))
    }
}
