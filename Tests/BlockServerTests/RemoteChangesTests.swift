// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockClient
import BlockDevices
import LinuxIO
import SyncEngine
import TestSupport
import Testing

/// Push and pull of the ranges of a change map.
@Suite(.blocking, .timeLimit(.minutes(60))) struct RemoteChangesTests {
    private let rig: ServerRig
    private let image: String

    init() throws {
        rig = try ServerRig()
        image = rig.image("image")
    }

    /// What a map might name, and the whole regions that are compared for it.
    private func changes(
        seed: UInt64, size: Int, region: Int
    ) -> (map: [ByteRange], compared: [ByteRange]) {
        var random = SeededGenerator(seed: seed)
        var map: [ByteRange] = []
        var position = Int.random(in: 0..<size, using: &random) / 3
        while position < size {
            let longest = [1, 5000, 400_000][Int.random(in: 0..<3, using: &random)]
            let end = min(size, position + Int.random(in: 1...longest, using: &random))
            map.append(ByteRange(position, to: end))
            position = end + Int.random(in: 1...200_000, using: &random)
        }
        var compared: [ByteRange] = []
        for change in map {
            let start = max(compared.last?.end ?? 0, change.offset / region * region)
            let end = min(size, (change.end + region - 1) / region * region)
            if start < end { compared.append(ByteRange(start, to: end)) }
        }
        return (map, compared)
    }

    private func expected(_ pair: DevicePair, _ compared: [ByteRange]) -> [UInt8] {
        var bytes = pair.target
        for range in compared {
            bytes.replaceSubrange(
                range.offset..<range.end, with: pair.source[range.offset..<range.end])
        }
        return bytes
    }

    @Test(arguments: seeds(28))
    func `a push makes the ranges of the map equal, and reads nothing else`(seed: UInt64) throws {
        let pair = DevicePair(seed: seed)
        let region = BlockLayout(block: pair.block).region
        let (map, compared) = changes(seed: seed, size: pair.source.count, region: region)
        var run = RemoteRun(block: pair.block, method: pair.method)
        run.options.changes = map
        func push() throws -> (SyncReport, RecordingDevice, compared: Int) {
            try makeImage(image, pair.target)
            let source = RecordingDevice(MemoryDevice(pair.source, knowsHoles: seed % 2 == 0))
            let before = rig.counts.compared
            let report = try run.push(source, to: image, of: rig)
            return (report, source, rig.counts.compared - before)
        }
        var (report, source, comparedThere) = try push()
        // A child of another test may have had the image open: then all is compared at the end.
        for _ in 0..<20 where report.targetWasOpened {
            (report, source, comparedThere) = try push()
        }
        #expect(report.isGood, "seed \(seed): \(report)")
        #expect(try [UInt8](contentsOf: image) == expected(pair, compared), "seed \(seed)")
        #expect(report.tally.compared == compared.length, "seed \(seed)")
        #expect(report.tally.unchanged == pair.source.count - compared.length, "seed \(seed)")
        #expect(comparedThere <= compared.length, "seed \(seed)")
        #expect(
            source.reads.allSatisfy { read in
                compared.contains { $0.offset <= read.offset && read.end <= $0.end }
                    || compared.filter(read.overlaps).length >= read.length
            }, "seed \(seed): read outside of the map")
    }

    @Test(arguments: seeds(28))
    func `a pull makes the ranges of the map equal, and reads nothing else`(seed: UInt64) throws {
        let pair = DevicePair(seed: seed)
        try makeImage(image, pair.source)
        let region = BlockLayout(block: pair.block).region
        let (map, compared) = changes(seed: seed, size: pair.source.count, region: region)
        let memory = MemoryDevice(pair.target, knowsHoles: seed % 2 == 0)
        let target = RecordingDevice(memory)
        var run = RemoteRun(block: pair.block, method: pair.method)
        run.options.changes = map
        let report = try run.pull(image, of: rig, to: target)
        #expect(report.isGood, "seed \(seed): \(report)")
        #expect(memory.bytes == expected(pair, compared), "seed \(seed)")
        #expect(report.tally.compared == compared.length, "seed \(seed)")
        #expect(
            (target.reads + target.modifications).allSatisfy { access in
                compared.filter(access.overlaps).length >= access.length
            }, "seed \(seed): touched outside of the map")
    }

    @Test func `many short changes are compared and sent together`() throws {
        let size = 64 << 20
        var random = SeededGenerator(seed: 7)
        let source = random.bytes(size)
        var target = source
        // One region of eight, and one block of it.
        let map = stride(from: 0, to: size, by: 512 << 10).map {
            ByteRange(offset: $0, length: 64 << 10)
        }
        for change in map { target[change.offset + 5000] &+= 1 }
        var run = RemoteRun()
        run.options.changes = map
        // With this limit the line of a loaded machine does not count as long.
        run.client.bytesPerSecond = 31 << 20
        func push() throws -> (SyncReport, compares: Int, writes: Int) {
            try makeImage(image, target)
            let before = (rig.requests(to: "compare"), rig.requests(to: "write"))
            let report = try run.push(MemoryDevice(source), to: image, of: rig)
            return (
                report, rig.requests(to: "compare") - before.0,
                rig.requests(to: "write") - before.1
            )
        }
        var (report, compares, writes) = try push()
        // A child of another test may have had the image open: then all is compared at the end.
        for _ in 0..<20 where report.targetWasOpened { (report, compares, writes) = try push() }
        #expect(report.isGood && report.tally.written == map.count * 4096)
        #expect(try [UInt8](contentsOf: image) == source)
        // 128 regions have 8 MiB: four windows of 2 MiB; and once it is asked where data is.
        #expect((4...5).contains(compares))
        #expect(writes == 4)
    }
}
