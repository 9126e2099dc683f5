// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import Digests
internal import LinuxIO
internal import Synchronization
internal import TestSupport
internal import Testing

/// A hasher digests regions and blocks.
@Suite(.timeLimit(.minutes(60)))
struct BlockHasherTests {
    static let methods = DigestMethod.available()
    private let seed = UInt64.random(in: .min ... .max)
    private var random: SeededGenerator

    init() {
        random = SeededGenerator(seed: seed)
        print("seed \(seed)")
    }

    @Test(arguments: methods)
    func `a reused hasher gives what a fresh hasher gives`(method: DigestMethod) throws {
        var random = random
        let key = try DigestKey(random.bytes(DigestKey.byteCount))
        var hasher = try BlockHasher(method, key: key)
        for size in [0, 1, 15, 16, 17, 4096, 0, 65536] + (0..<50).map({ _ in small(&random) }) {
            let message = random.bytes(size)
            #expect(try hasher.digest(of: message) == oneShot(method, key, message), seeded)
        }
    }

    @Test func `a hasher writes only the digest's own bytes`() throws {
        for method in Self.methods {
            var hasher = try BlockHasher(method, key: DigestKey())
            var memory = [UInt8](repeating: 0xA5, count: method.byteCount + 16)
            try memory.withUnsafeMutableBytes { memory in
                try [UInt8](repeating: 1, count: 100).withUnsafeBytes {
                    try hasher.digest(of: $0, into: memory)
                }
            }
            #expect(memory.suffix(16) == ArraySlice(repeating: 0xA5, count: 16))
        }
    }

    @Test func `the digests of regions are those of the slices, a partial last one included`()
        throws
    {
        var random = random
        for _ in 0..<100 {
            let method = Self.methods.randomElement(using: &random) ?? .poly1305
            let key = try DigestKey(random.bytes(DigestKey.byteCount))
            let regionSize = 1 << Int.random(in: 9...13, using: &random)
            let window = random.bytes(Int.random(in: 0...5 * regionSize, using: &random))
            var digests = [UInt8](
                repeating: 0xA5,
                count: method.byteCount(ofDigestsOver: window.count, every: regionSize))
            var hasher = try BlockHasher(method, key: key)
            try window.withUnsafeBytes { window in
                try digests.withUnsafeMutableBytes {
                    try hasher.regionDigests(of: window, regionSize: regionSize, into: $0)
                }
            }
            let expected = try slices(window, every: regionSize).flatMap {
                try oneShot(method, key, $0)
            }
            #expect(digests == expected, seeded)
        }
    }

    @Test func `the digests of regions of zeros are those of slices with zeros`() throws {
        for method in Self.methods {
            let key = try DigestKey()
            var hasher = try BlockHasher(method, key: key)
            let whole = try hasher.digest(ofZeros: 512)
            for size in [0, 512, 1300] {
                var digests = [UInt8](
                    repeating: 0xA5, count: method.byteCount(ofDigestsOver: size, every: 512))
                try digests.withUnsafeMutableBytes {
                    try hasher.regionDigests(ofZeros: size, regionSize: 512, whole: whole, into: $0)
                }
                let expected = try slices([UInt8](repeating: 0, count: size), every: 512).flatMap {
                    try oneShot(method, key, $0)
                }
                #expect(digests == expected, "\(method.name), \(size) bytes")
            }
        }
    }

    @Test func `the digests of blocks are those of the slices, and zero blocks are marked instead`()
        throws
    {
        var random = random
        for _ in 0..<100 {
            let method = Self.methods.randomElement(using: &random) ?? .poly1305
            let key = try DigestKey(random.bytes(DigestKey.byteCount))
            let blockSize = 1 << Int.random(in: 9...12, using: &random)
            let buffer = sparse(Int.random(in: 0...20 * blockSize, using: &random), &random)
            let (digests, marks) = try blockDigests(method, key, buffer, blockSize)
            let blocks = slices(buffer, every: blockSize)
            #expect(marks == blocks.map { $0.allSatisfy { $0 == 0 } }, seeded)
            let expected = try blocks.flatMap { block in
                block.allSatisfy { $0 == 0 }
                    ? [UInt8](repeating: 0, count: method.byteCount)
                    : try oneShot(method, key, block)
            }
            #expect(digests == expected, seeded)
        }
    }

    @Test func `a block with one set bit anywhere is no zero block`() throws {
        var random = random
        var buffer = [UInt8](repeating: 0, count: 4096 + 512)
        for place in [0, 7, 8, 4095, 4096, buffer.count - 1]
            + (0..<200).map({ _ in Int.random(in: 0..<buffer.count, using: &random) })
        {
            buffer[place] = 1 << UInt8.random(in: 0...7, using: &random)
            let (_, marks) = try blockDigests(.poly1305, DigestKey(), buffer, 4096)
            #expect(marks == [place >= 4096, place < 4096], seeded)
            buffer[place] = 0
        }
    }

    @Test func `many threads, each with its hasher, compute the same digests with one key`() throws
    {
        var random = random
        let key = try DigestKey()
        let messages = (0..<64).map { _ in random.bytes(small(&random)) }
        let methods = Self.methods
        let expected = try methods.map { method in
            try messages.map { try oneShot(method, key, $0) }
        }
        let right = Atomic(0)
        Threads.start(count: 16) { thread in
            for round in 0..<methods.count * 4 {
                let index = (thread + round) % methods.count
                guard var hasher = try? BlockHasher(methods[index], key: key) else { continue }
                let digests = messages.compactMap { try? hasher.digest(of: $0) }
                if digests == expected[index] { right.add(1, ordering: .relaxed) }
            }
        }.wait()
        #expect(right.load(ordering: .relaxed) == 16 * methods.count * 4, seeded)
    }

    @Test func `digests into too little memory are the caller's bug`() async {
        await #expect(processExitsWith: .failure) {
            var hasher = try BlockHasher(.poly1305, key: DigestKey())
            withUnsafeTemporaryAllocation(byteCount: 15, alignment: 1) { memory in
                try? hasher.digest(of: UnsafeRawBufferPointer(memory), into: memory)
            }
        }
    }
}

extension BlockHasherTests {
    private var seeded: Comment { "seed \(seed)" }

    private func small(_ random: inout SeededGenerator) -> Int {
        Int.random(in: 0...1000, using: &random)
    }

    /// Random bytes with runs of zeros, about half of it.
    private func sparse(_ count: Int, _ random: inout SeededGenerator) -> [UInt8] {
        var bytes = random.bytes(count)
        for piece in stride(from: 0, to: count, by: 256) where Int(random.next() % 8) != 0 {
            for index in piece..<min(piece + 256, count) { bytes[index] = 0 }
        }
        return bytes
    }

    private func slices(_ bytes: [UInt8], every size: Int) -> [[UInt8]] {
        stride(from: 0, to: bytes.count, by: size).map {
            Array(bytes[$0..<min($0 + size, bytes.count)])
        }
    }

    private func blockDigests(
        _ method: DigestMethod, _ key: DigestKey, _ buffer: [UInt8], _ blockSize: Int
    ) throws -> (digests: [UInt8], marks: [Bool]) {
        let size = method.byteCount(ofDigestsOver: buffer.count, every: blockSize)
        var digests = [UInt8](repeating: 0xA5, count: size)
        var marks = [Bool](repeating: true, count: size / method.byteCount)
        var hasher = try BlockHasher(method, key: key)
        try buffer.withUnsafeBytes { buffer in
            try digests.withUnsafeMutableBytes { digests in
                try marks.withUnsafeMutableBufferPointer {
                    try hasher.blockDigests(
                        of: buffer, blockSize: blockSize, into: digests, zeroBlocks: $0)
                }
            }
        }
        return (digests, marks)
    }
}
