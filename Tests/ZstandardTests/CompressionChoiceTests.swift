// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Testing
import Zstandard

/// The choice on made-up machines and lines, whose time is computed.
@Suite(.timeLimit(.minutes(60))) struct CompressionChoiceTests {
    /// Rates in bytes a second.
    struct World: Sendable, CustomTestStringConvertible {
        var name: String
        var line: Double
        /// Of one processor.
        var processor: Double
        /// Compressed bytes for each plain byte.
        var ratio: Double
        /// What the other side adds to an exchange, in seconds a byte.
        var otherSide = 0.0
        var compresses: Bool

        var testDescription: String { name }
    }

    /// A run of one thread, one payload after the other.
    private struct Run {
        var choice = CompressionChoice(processors: 2)
        var now = 0.0
        var payloads = 0
        var compressed = 0
        /// Seconds for samples.
        var sampling = 0.0
        static let payload = 2 << 20

        mutating func exchange(_ world: World, count: Int = Run.payload) {
            let start = now
            let bytes = Double(count)
            payloads += 1
            var isWanted = false
            switch choice.begin(at: now) {
            case .plain: break
            case .compressed: isWanted = true
            case .sample:
                let sample = Double(CompressionChoice.sampleSize)
                let seconds = sample / world.processor
                now += seconds
                sampling += seconds
                isWanted = choice.isWorthwhile(
                    sample: Int(sample * world.ratio), of: Int(sample), seconds: seconds, at: now)
            }
            now += bytes * world.otherSide
            guard isWanted else {
                now += bytes / world.line
                return choice.note(plain: count, seconds: now - start, at: now)
            }
            compressed += 1
            now += bytes / world.processor + bytes * world.ratio / world.line
            choice.note(
                packed: Int(bytes * world.ratio), of: count, seconds: now - start, at: now)
        }

        mutating func exchange(_ world: World, for seconds: Double) {
            let end = now + seconds
            while now < end { exchange(world) }
        }
    }

    private static let worlds = [
        World(
            name: "100 Mbit/s, text", line: 12.5e6, processor: 400e6, ratio: 0.3,
            compresses: true),
        World(
            name: "1 Gbit/s, text", line: 125e6, processor: 400e6, ratio: 0.3, compresses: true),
        World(
            name: "10 Gbit/s, text", line: 1.25e9, processor: 400e6, ratio: 0.3,
            compresses: false),
        World(name: "loopback, text", line: 3e9, processor: 400e6, ratio: 0.3, compresses: false),
        World(
            name: "loopback, almost zeros", line: 3e9, processor: 2e9, ratio: 0.01,
            compresses: false),
        World(
            name: "100 Mbit/s, random", line: 12.5e6, processor: 1.5e9, ratio: 1,
            compresses: false),
        World(
            name: "100 Mbit/s, hardly compressible", line: 12.5e6, processor: 400e6, ratio: 0.9,
            compresses: false),
        World(
            name: "1 Gbit/s to a slow disk", line: 125e6, processor: 400e6, ratio: 0.5,
            otherSide: 1 / 20e6, compresses: false),
        World(
            name: "a slow processor", line: 12.5e6, processor: 10e6, ratio: 0.3,
            compresses: false),
    ]

    @Test(arguments: worlds)
    private func `compression is chosen where the run becomes faster by it`(world: World) {
        var run = Run()
        run.exchange(world, for: 60)
        let share = Double(run.compressed) / Double(run.payloads)
        #expect(world.compresses ? share > 0.95 : share < 0.1, "\(share)")
    }

    @Test(arguments: worlds)
    private func `no run is more than three percent slower than without compression`(world: World) {
        var run = Run()
        run.exchange(world, for: 30)
        let bytes = Double(run.payloads) * Double(Run.payload)
        let without = bytes / world.line + bytes * world.otherSide
        #expect(run.now < 1.03 * without, "\(run.now) s, and \(without) s without")
        #expect(run.sampling < 0.01 * run.now)
    }

    @Test func `the second payload of a compressible disk goes compressed`() {
        var run = Run()
        for _ in 0..<2 { run.exchange(Self.worlds[0]) }
        #expect(run.compressed == 1)
    }

    @Test func `random data ends compression after two payloads, and text brings it back`() {
        var run = Run()
        let (text, random) = (Self.worlds[0], Self.worlds[5])
        for _ in 0..<10 { run.exchange(text) }
        let before = run.compressed
        for _ in 0..<10 { run.exchange(random) }
        #expect(run.compressed <= before + 2 && !run.choice.isCompressing)
        for _ in 0..<3 { run.exchange(text) }
        #expect(run.choice.isCompressing)
    }

    @Test func `a line that becomes fast ends compression within half a minute`() {
        var run = Run()
        run.exchange(Self.worlds[0], for: 10)
        #expect(run.choice.isCompressing)
        run.exchange(Self.worlds[3], for: 30)
        let before = run.compressed
        let payloads = run.payloads
        run.exchange(Self.worlds[3], for: 10)
        #expect(Double(run.compressed - before) < 0.01 * Double(run.payloads - payloads))
    }

    @Test func `more threads than processors make compression dearer`() {
        let world = Self.worlds[1]
        for (threads, isChosen) in [(1, true), (64, false)] {
            var choice = CompressionChoice(processors: 2)
            _ = choice.begin(at: 0)
            choice.note(plain: 2 << 20, seconds: Double(2 << 20) / world.line, at: 1)
            for _ in 1..<threads { _ = choice.begin(at: 0) }
            #expect(choice.begin(at: 1) == .sample)
            let seconds = Double(CompressionChoice.sampleSize) / world.processor
            #expect(
                choice.isWorthwhile(
                    sample: 20_000, of: CompressionChoice.sampleSize, seconds: seconds, at: 1)
                    == isChosen)
        }
    }

    @Test func `small payloads and failed exchanges are not measured`() {
        var choice = CompressionChoice(processors: 2)
        for _ in 0..<10 {
            #expect(choice.begin(at: 0) == .plain)
            choice.note(plain: 4096, seconds: 10, at: 0)
            #expect(choice.begin(at: 0) == .plain)
            choice.abandon(at: 0)
        }
    }
}
