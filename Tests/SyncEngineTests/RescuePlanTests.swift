// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import TestSupport
import Testing

@testable import SyncEngine

@Suite struct RescuePlanTests {
    static let unit = 512

    /// A made-up disk, whose reads fail if they touch a bad sector, and are late at slow ones.
    struct Disk {
        var size: Int
        var bad: [ByteRange] = []
        var slow: [ByteRange] = []

        func outcome(_ range: ByteRange) -> RescuePlan.Outcome {
            if slow.contains(where: range.overlaps) { return .late }
            return bad.contains(where: range.overlaps) ? .failed : .read
        }
    }

    /// Runs a plan to its end and returns the reads.
    static func run(
        _ map: inout RescueMap, _ disk: Disk, isReversed: Bool = false, stopAfter: Int = .max
    ) -> [ByteRange] {
        var plan = RescuePlan(map, unit: unit, window: 64 << 10, isReversed: isReversed)
        var reads: [ByteRange] = []
        while reads.count < stopAfter, let range = plan.next() {
            reads.append(range)
            plan.note(disk.outcome(range))
        }
        map = plan.map
        return reads
    }

    static func randomDisk(_ random: inout SplitMix64) -> Disk {
        let size = Int.random(in: 1...4 << 20, using: &random)
        var disk = Disk(size: size)
        for _ in 0..<Int.random(in: 0...12, using: &random) {
            let start = Int.random(in: 0..<size, using: &random) / unit * unit
            let length = unit * Int.random(in: 1...64, using: &random)
            disk.bad.append(ByteRange(start, to: min(size, start + length)))
        }
        return disk
    }

    @Test(arguments: seeds(200))
    func `one run reads every good sector, and marks every bad one`(_ seed: UInt64) {
        var random = SplitMix64(seed: seed)
        let disk = Self.randomDisk(&random)
        var map = RescueMap(size: disk.size)
        let isReversed = Bool.random(using: &random)
        let reads = Self.run(&map, disk, isReversed: isReversed)
        for start in stride(from: 0, to: disk.size, by: Self.unit) {
            let sector = ByteRange(start, to: min(start + Self.unit, disk.size))
            let isBad = disk.bad.contains { $0.overlaps(sector) }
            #expect(map.status(at: start) == (isBad ? .bad : .finished), "\(sector)")
        }
        #expect(map.phase == .finished)
        for range in reads { #expect(range.offset % Self.unit == 0 && range.end <= disk.size) }
        // A failed sector is read once in a large piece and once alone.
        for range in disk.bad {
            let alone = reads.filter { $0.length <= Self.unit && $0.offset == range.offset }
            #expect(alone.count <= 1)
        }
    }

    @Test(arguments: seeds(200))
    func `runs that are cut off anywhere end with the same map`(_ seed: UInt64) {
        var random = SplitMix64(seed: seed)
        let disk = Self.randomDisk(&random)
        var map = RescueMap(size: disk.size)
        for run in 0..<8 {
            let before = map.bytes(.finished)
            let count = Int.random(in: 0...40, using: &random)
            _ = Self.run(&map, disk, isReversed: run % 2 == 1, stopAfter: count)
            #expect(map.bytes(.finished) >= before)
            guard let again = try? RescueMap(map.text) else {
                Issue.record("the map cannot be read")
                return
            }
            #expect(again == map)
            map = again
        }
        _ = Self.run(&map, disk)
        var expected = RescueMap(size: disk.size)
        _ = Self.run(&expected, disk)
        #expect(map.areas == expected.areas)
    }

    @Test func `good areas come before the rest of a bad one`() {
        let disk = Disk(size: 1 << 20, bad: [ByteRange(offset: 128 << 10, length: 64 << 10)])
        var map = RescueMap(size: disk.size)
        let reads = Self.run(&map, disk)
        let firstSmall = reads.firstIndex { $0.length == Self.unit }
        let lastLarge = reads.lastIndex { $0.length == 64 << 10 }
        #expect(firstSmall ?? 0 > lastLarge ?? 0)
        // The second pass comes from the other end.
        #expect(reads.prefix(3).map(\.offset) == [0, 64 << 10, 128 << 10])
    }

    @Test func `another run reads only what is bad, once, and from the other end`() {
        let bad = [
            ByteRange(offset: 4096, length: 1024), ByteRange(offset: 900 << 10, length: 512),
        ]
        let disk = Disk(size: 1 << 20, bad: bad)
        var map = RescueMap(size: disk.size)
        _ = Self.run(&map, disk)
        #expect(map.ranges(.bad) == bad)
        let again = Self.run(&map, disk, isReversed: true)
        #expect(again.map(\.offset) == [900 << 10, 4608, 4096])
        // Sectors that can be read later.
        _ = Self.run(&map, Disk(size: disk.size))
        #expect(map.bytes(.finished) == disk.size)
    }

    @Test func `what does not answer comes last, and waits for the next run`() {
        let slow = ByteRange(offset: 256 << 10, length: 512)
        let disk = Disk(
            size: 1 << 20, bad: [ByteRange(offset: 512 << 10, length: 512)], slow: [slow])
        var map = RescueMap(size: disk.size)
        let reads = Self.run(&map, disk)
        let touched = reads.indices.filter { reads[$0].overlaps(slow) }
        #expect(touched.count == 2)
        #expect(touched.last == reads.count - 1)
        #expect(map.ranges(.untried) == [ByteRange(offset: 256 << 10, length: 64 << 10)])
        #expect(map.bytes(.bad) == 512)
        _ = Self.run(&map, Disk(size: disk.size, bad: disk.bad), isReversed: true)
        #expect(map.bytes(.finished) == disk.size - 512)
    }

    @Test(arguments: seeds(100))
    func `a map with areas in any place is completed`(_ seed: UInt64) {
        var random = SplitMix64(seed: seed)
        let disk = Self.randomDisk(&random)
        var map = RescueMap(size: disk.size)
        for _ in 0..<20 {
            let start = Int.random(in: 0..<disk.size, using: &random)
            let end = Int.random(in: start...disk.size, using: &random)
            map.set(
                ByteRange(start, to: end),
                to: RescueMap.Status.allCases.randomElement(using: &random)!)
        }
        map.phase = RescueMap.Phase.allCases.randomElement(using: &random)!
        map.pass = Int.random(in: 1...7, using: &random)
        map.position = Int.random(in: 0...disk.size, using: &random)
        let before = map
        _ = Self.run(&map, disk, isReversed: Bool.random(using: &random))
        for area in before.areas where area.status == .finished {
            #expect(map.status(at: area.range.offset) == .finished)
        }
        for area in map.areas where area.status != .finished {
            #expect(area.status == .bad)
            // A bad unit may have finished neighbours in its sector.
            let sector = area.range.offset / Self.unit * Self.unit
            let whole = ByteRange(
                sector, to: min(area.range.end.roundedUp(to: Self.unit), disk.size))
            #expect(disk.bad.contains { $0.overlaps(whole) })
        }
    }
}
