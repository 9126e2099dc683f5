// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import Digests
import FuzzTargets
import Glibc
import TestSupport
import Testing
import WireProtocol

/// What tools/fuzz starts from, and bytes made up at random: nothing may crash, and what is
/// accepted must keep the promises that the targets check.
@Suite(.blocking, .timeLimit(.minutes(60))) struct SeedTests {
    @Test(arguments: FuzzTarget.allCases)
    func `every committed fuzz input runs through`(target: FuzzTarget) throws {
        let directory = "\(sourceTree)/Tests/FuzzSeeds/\(target.rawValue)"
        let names = try names(in: directory)
        #expect(!names.isEmpty, "\(directory)")
        for name in names {
            let seed = try contents(of: "\(directory)/\(name)")
            seed.withUnsafeBytes { target.run($0) }
            for count in stride(from: 0, to: seed.count, by: 1 + seed.count / 200) {
                seed.withUnsafeBytes { target.run(UnsafeRawBufferPointer(rebasing: $0[..<count])) }
                var changed = seed
                changed[count] ^= 1 << (count % 8)
                changed.withUnsafeBytes { target.run($0) }
            }
        }
    }

    @Test(arguments: FuzzTarget.allCases)
    func `random bytes run through every fuzz target`(target: FuzzTarget) {
        var random = SeededGenerator(seed: 20_261_122)
        for _ in 0..<3000 {
            let bytes = random.bytes(Int.random(in: 0...100, using: &random))
            bytes.withUnsafeBytes { target.run($0) }
        }
    }

    /// Sizes at which a sum or a product overflows, or a conversion fails.
    private static let sizes: [UInt64] = [
        1 << 31, 1 << 32 - 1, 1 << 53, 1 << 59, 1 << 60 - 1, 1 << 60, 1 << 60 + 1, 1 << 61,
        1 << 62, 1 << 63 - 4096, 1 << 63 - 512, 1 << 63 - 1, 1 << 63, .max - 4095, .max,
    ]

    @Test(arguments: FuzzTarget.allCases)
    func `any number in a committed fuzz input may be a size that overflows`(target: FuzzTarget)
        throws
    {
        let directory = "\(sourceTree)/Tests/FuzzSeeds/\(target.rawValue)"
        for name in try names(in: directory) {
            let seed = try contents(of: "\(directory)/\(name)")
            for size in Self.sizes {
                for changed in variants(of: seed, size) {
                    changed.withUnsafeBytes { target.run($0) }
                }
            }
        }
    }

    /// The bytes with a size in place of eight of them, each way that the first byte may choose a
    /// device, and of each number in them.
    private func variants(of seed: [UInt8], _ size: UInt64) -> [[UInt8]] {
        var found: [[UInt8]] = []
        let binary = withUnsafeBytes(of: size.littleEndian) { Array($0) }
        for start in stride(from: 1, through: min(seed.count - 8, 400), by: 4) {
            var changed = seed
            changed.replaceSubrange(start..<start + 8, with: binary)
            for device in UInt8(0)..<4 {
                changed[0] = seed[0] & 0x3F | device << 6
                found.append(changed)
            }
        }
        var place = 0
        let digits = UInt8(ascii: "0")...UInt8(ascii: "9")
        while let start = seed[place...].firstIndex(where: { digits ~= $0 }), found.count < 4000 {
            place = seed[start...].firstIndex { !(digits ~= $0) } ?? seed.count
            found.append(seed[..<start] + Array("\(size)".utf8) + seed[place...])
        }
        return found
    }

    private func names(in directory: String) throws -> [String] {
        let stream = try #require(opendir(directory), "\(directory) is missing")
        defer { closedir(stream) }
        var names: [String] = []
        while let entry = readdir(stream) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if !name.hasPrefix(".") { names.append(name) }
        }
        return names.sorted()
    }
}

/// Frames that are right, at random.
@Suite(.blocking, .timeLimit(.minutes(60))) struct RandomFrameTests {
    @Test func `a random payload is read as it was written`() throws {
        var random = SeededGenerator(seed: 1)
        for _ in 0..<500 {
            var (extents, data, position) = ([Extent](), [UInt8](), 0)
            for _ in 0..<Int.random(in: 1...20, using: &random) {
                position += 512 * Int.random(in: 0...5, using: &random)
                let length = 512 * Int.random(in: 1...4, using: &random)
                let isZero = Bool.random(using: &random)
                let range = ByteRange(offset: position, length: length)
                extents.append(Extent(range, isZero ? .zero : .data))
                if !isZero { data += random.bytes(length) }
                position += length
            }
            try (data + encodedTable(extents)).withUnsafeBytes { bytes in
                let payload = try ExtentFrame.readPayload(bytes, size: position, unit: 512)
                #expect(payload.extents == extents && payload.data.elementsEqual(data))
            }
        }
    }

    @Test func `a random compare answer is read as it was written`() throws {
        var random = SeededGenerator(seed: 2)
        for _ in 0..<300 {
            let block = 512 * Int.random(in: 1...4, using: &random)
            let factor = 1 << Int.random(in: 0...5, using: &random)
            let layout = BlockLayout(block: block, region: block * factor)
            let length = Int.random(in: 1...10 * layout.region, using: &random)
            let range = ByteRange(offset: 3 * layout.region, length: length)
            let all = layout.regions(of: [range])
            let regions = all.indices.filter { _ in Bool.random(using: &random) }
            var bytes = written(4) { CompareAnswer.writeHeader(count: regions.count, to: $0) }
            var expected: [([Bool], [UInt8])] = []
            for index in regions {
                let blocks = layout.blocks(in: all[index])
                let marks = (0..<blocks).map { _ in Bool.random(using: &random) }
                // A marked block has a digest of zeros.
                let digests = marks.flatMap { isMarked in
                    isMarked ? [UInt8](repeating: 0, count: 16) : random.bytes(16)
                }
                expected.append((marks, digests))
                bytes += encodedEntry(index, marks, expected[expected.count - 1].1)
            }
            try bytes.withUnsafeBytes { bytes in
                let found = try CompareAnswer.read(
                    bytes, regions: all, layout: layout, digestSize: 16)
                #expect(found.map(\.index) == regions)
                for (difference, (marks, digests)) in zip(found, expected) {
                    #expect(marks.indices.map { difference.isZero(block: $0) } == marks)
                    #expect(difference.digests.elementsEqual(digests))
                }
            }
        }
    }
}
