// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import Foundation
import LinuxIO
import TestSupport
import Testing

@testable import DeltaFile

@Suite(.blocking, .timeLimit(.minutes(60))) struct DeltaFileTests {
    private let scratch: ScratchDirectory

    init() throws { scratch = try ScratchDirectory() }

    private func number(_ value: Int) -> [UInt8] {
        withUnsafeBytes(of: UInt64(value).littleEndian, Array.init)
    }

    @Test func `a small stream is exactly that of Ceph's documentation`() throws {
        let (a, b, c) = (
            [UInt8](repeating: 0xA1, count: 512), [UInt8](repeating: 0xB2, count: 512),
            [UInt8](repeating: 0xC3, count: 512)
        )
        let zeros = [UInt8](repeating: 0, count: 512)
        let base = a + a + b + b + zeros + a
        let result = a + b + c + zeros + zeros + c
        let delta = try DeltaCase(base: base, result: result, block: 512).make(in: scratch)
        var stream = Array("rbd diff v1\n".utf8)
        stream += Array("s".utf8) + number(3072)
        // Adjacent blocks are one record.
        stream += Array("w".utf8) + number(512) + number(1024) + b + c
        stream += Array("z".utf8) + number(1536) + number(512)
        stream += Array("w".utf8) + number(2560) + number(512) + c
        stream += Array("e".utf8)
        #expect(Array(delta.bytes.prefix(stream.count)) == stream)
        #expect(Array(delta.bytes[stream.count...].prefix(8)) == Array("BLKFDLTA".utf8))
    }

    @Test func `records are no longer than 4 MiB, and a grown hole is one record`() throws {
        let base = [UInt8](repeating: 0, count: 4096)
        var result = [UInt8](repeating: 7, count: 9 << 20)
        result += [UInt8](repeating: 0, count: 20 << 20)
        let reader = try DeltaCase(base: base, result: result).make(in: scratch).reader()
        let records = reader.records()
        var ranges: [ByteRange] = []
        while let record = try records.next() { ranges.append(record.range) }
        #expect(
            ranges.map(\.length) == [4 << 20, 4 << 20, 1 << 20, 3 << 20, 17 << 20]
                || ranges.map(\.length) == [4 << 20, 4 << 20, 1 << 20, 20 << 20], "\(ranges)")
    }

    @Test(arguments: 0..<12) func `a delta leads from the base to the result`(seed: UInt64) throws {
        let sizes = [(5 << 20, 5 << 20), (70000, 300_000), (300_000, 70001), (512, 512)]
        let (base, result) = sizes[Int(seed) % sizes.count]
        let block = [512, 4096, 65536][Int(seed / 4) % 3]
        let pair = DeltaCase.random(seed: seed, base: base, result: result, block: block)
        let delta = try pair.make(in: scratch)
        #expect(try delta.state(of: pair.base, hasResultSize: base == result) != .other)
        if pair.base != pair.result {
            #expect(try delta.state(of: pair.base, hasResultSize: base == result) == .base)
        }
        #expect(try delta.state(of: pair.result) == .result)
        let grown = pair.base + [UInt8](repeating: 0, count: max(0, result - base))
        let after = try delta.applied(to: grown)
        #expect(Array(after.prefix(result)) == pair.result)
        // A grown target of another alignment, as one with large sectors.
        if result % 4096 == 0, base % 4096 == 0 {
            #expect(Array(try delta.applied(to: grown, alignment: 4096)) == pair.result)
        }
    }

    @Test(arguments: 0..<8) func `each mixture of both states is recognized and completed`(
        seed: UInt64
    ) throws {
        let sizes = [(200_000, 200_000), (70000, 300_000), (300_000, 70001)]
        let (base, result) = sizes[Int(seed) % sizes.count]
        let pair = DeltaCase.random(seed: seed &+ 100, base: base, result: result)
        let delta = try pair.make(in: scratch)
        var generator = SeededGenerator(seed: seed)
        for _ in 0..<8 {
            // The target has grown before the first write, and is cut after the last.
            var torn = pair.base + [UInt8](repeating: 0, count: max(0, result - base))
            for start in stride(from: 0, to: result, by: 512) where generator.next() % 2 == 0 {
                let end = min(start + 512, result)
                torn.replaceSubrange(start..<end, with: pair.result[start..<end])
            }
            let state = try delta.state(of: torn, hasResultSize: result >= base)
            #expect([.between, .base, .result].contains(state), "\(state)")
            #expect(Array(try delta.applied(to: torn).prefix(result)) == pair.result)
        }
    }

    @Test(arguments: 0..<20) func `one changed byte of the base is noticed`(seed: UInt64) throws {
        let pair = DeltaCase.random(seed: seed, base: 100_000, result: 90000)
        let delta = try pair.make(in: scratch)
        var generator = SeededGenerator(seed: seed)
        var changed = pair.base
        let place = Int(generator.next() % 100_000)
        changed[place] ^= 0x40
        switch try delta.state(of: changed, hasResultSize: false) {
        case .other: break
        case .unproven(let bytes, let first):
            #expect(bytes == 512 && (first..<first + 512).contains(place))
        case let state: Issue.record("\(place): \(state)")
        }
    }

    @Test func `a delta that is cut anywhere is refused, or is a stream without a trailer`() throws
    {
        let pair = DeltaCase.random(seed: 5, base: 6000, result: 6000, block: 512)
        let delta = try pair.make(in: scratch)
        let end = try #require(
            Data(delta.bytes).range(of: Data("BLKFDLTA".utf8))?.lowerBound)
        for length in 0..<delta.bytes.count {
            let cut = MemoryDelta(bytes: Array(delta.bytes.prefix(length)))
            if length == end {
                #expect(try cut.reader().statement == nil)
            } else {
                #expect(throws: IOError.self, "\(length)") { try cut.reader() }
            }
        }
        let longer = MemoryDelta(bytes: delta.bytes + [0])
        #expect(throws: IOError.self) { try longer.reader() }
    }

    @Test func `each changed byte of a delta is noticed`() throws {
        let pair = DeltaCase.random(seed: 6, base: 3000, result: 3000, block: 512)
        let delta = try pair.make(in: scratch)
        for place in delta.bytes.indices {
            var bytes = delta.bytes
            bytes[place] ^= UInt8(1 << (place % 8))
            #expect(throws: IOError.self, "\(place)") { try MemoryDelta(bytes: bytes).reader() }
        }
    }

    @Test(arguments: [
        ("rbd diff v2\n", "of version 2"), ("rbd image v2\n", "it is no delta"), ("", "no delta"),
    ]) func `other formats are refused by name`(start: String, reason: String) throws {
        let bytes = MemoryDelta(bytes: Array(start.utf8) + [UInt8](repeating: 0x65, count: 100))
        let error = #expect(throws: IOError.self) { try bytes.reader() }
        #expect(error?.reason.contains(reason) == true, "\(String(describing: error))")
        #expect(error?.cause == .wrongKind)
    }

    @Test func `records of a stream that make no sense are refused`() throws {
        let head = Array("rbd diff v1\ns".utf8) + number(4096)
        let bad: [[UInt8]] = [
            Array("w".utf8) + number(4096) + number(1) + [1, 0x65],
            Array("z".utf8) + number(0) + number(4097) + [0x65],
            Array("z".utf8) + number(1) + number(.max) + [0x65],
            Array("z".utf8) + [UInt8](repeating: 0xFF, count: 16) + [0x65],
            Array("w".utf8) + number(0) + number(100) + [1, 2, 0x65],
            Array("s".utf8) + number(4096) + [0x65],
            [0x78, 0x65], [],
        ]
        for record in bad {
            #expect(throws: IOError.self, "\(record)") {
                try MemoryDelta(bytes: head + record).reader()
            }
        }
        let good = head + Array("f".utf8) + [3, 0, 0, 0] + Array("sun".utf8)
        let reader = try MemoryDelta(bytes: good + [0x65]).reader()
        #expect(reader.fromSnapshot == "sun" && reader.size == 4096 && reader.statement == nil)
    }

    @Test func `a base that cannot be read leaves no file`() throws {
        var faults = FaultyDevice.Faults()
        faults.unreadable = [ByteRange(offset: 5 << 20, length: 512)]
        let content = [UInt8](repeating: 1, count: 6 << 20)
        let base = FaultyDevice(MemoryDevice(content), faults)
        let maker = DeltaMaker(
            result: MemoryDevice(content), base: base, names: ("result", "base"), block: 4096,
            directory: scratch.path
        ) { false }
        let path = scratch.file("delta")
        #expect(throws: IOError.self) {
            try maker.write(to: DeltaSink(creating: path))
        }
        #expect(try FileManager.default.contentsOfDirectory(atPath: scratch.path).isEmpty)
    }

    @Test func `small records are written together, in ascending order`() throws {
        let base = [UInt8](repeating: 1, count: 1 << 20)
        var result = base
        for start in stride(from: 0, to: result.count, by: 8192) { result[start] = 2 }
        let delta = try DeltaCase(base: base, result: result, block: 512).make(in: scratch)
        let device = RecordingDevice(MemoryDevice(base))
        try DeltaApplication(delta.reader(), target: device) { false }.run()
        #expect(device.modifications.reduce(0) { $0 + $1.length } == 128 * 512)
        #expect(device.reads.isEmpty)
    }
}
