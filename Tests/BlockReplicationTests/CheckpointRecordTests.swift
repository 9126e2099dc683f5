// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import SyncEngine
import TestSupport
import Testing

@testable import BlockReplication

/// A checkpoint's bytes, what it claims, and its samples.
@Suite struct CheckpointRecordTests {
    private static let gib = 1 << 30

    private static func side(_ name: String) -> CheckpointRecord.Side {
        .init(name: name, identity: "here \(name)", size: gib, boot: "b1", counter: "c-\(name)")
    }

    private static let record = CheckpointRecord(
        source: side("s"), target: side("t"), settings: .init(Replication.Options()),
        sample: .init(seed: .max, digest: "ab"),
        done: [ByteRange(offset: 0, length: 1 << 20), ByteRange(offset: 4 << 20, length: 1 << 20)])

    @Test func `a checkpoint is read as it was written`() throws {
        let bytes = try CheckpointFile.bytes(of: Self.record)
        #expect(CheckpointFile.content(of: bytes) == .record(Self.record))
        #expect(
            Self.record.doneRanges == [
                ByteRange(offset: 0, length: 1 << 20), ByteRange(offset: 4 << 20, length: 1 << 20),
            ])
    }

    @Test func `a checkpoint with any bit flipped, or cut anywhere, claims nothing`() throws {
        let bytes = try CheckpointFile.bytes(of: Self.record)
        for index in bytes.indices {
            for bit in 0..<8 {
                var damaged = bytes
                damaged[index] ^= 1 << bit
                #expect(!claims(damaged), "bit \(bit) of byte \(index)")
            }
            #expect(!claims(Array(bytes[..<index])), "\(index) bytes")
            #expect(!claims(Array(bytes[..<index]) + bytes[(index + 1)...]), "without \(index)")
            #expect(!claims(Array(bytes[..<index]) + [0] + bytes[index...]), "a byte at \(index)")
        }
        #expect(!claims(bytes + [0]) && !claims(bytes + bytes))
    }

    private func claims(_ bytes: [UInt8]) -> Bool {
        if case .record = CheckpointFile.content(of: bytes) { true } else { false }
    }

    @Test func `a file of anything else is foreign, and another version is recognized`() {
        for text in ["", "b", "blkferry checkpoint", "blkferry journal 1\n", "\u{7F}ELF"] {
            #expect(CheckpointFile.content(of: Array(text.utf8)) == CheckpointFile.noCheckpoint)
        }
        let other = Array("blkferry checkpoint 2\nanything".utf8)
        #expect(CheckpointFile.content(of: other) == .otherVersion)
    }

    @Test(arguments: [
        [0], [-1, 2], [5, 0], [0, -5], [0, 10, 5, 10], [10, 10, 0, 5], [gib, 1], [0, gib + 1],
        [1, .max], [.max, 1], [.max, .max],
    ])
    func `a list that is no list of ranges is no claim`(list: [Int]) throws {
        let text = String(decoding: try CheckpointFile.bytes(of: Self.record), as: UTF8.self)
        let json = text.split(separator: "\n")[1]
        let forged = json.replacing(/"done":\[[0-9,]*\]/, with: "\"done\":\(list)")
        let bytes = try CheckpointFile.sealed(Array(forged.utf8))
        guard case .damaged = CheckpointFile.content(of: bytes) else {
            Issue.record("\(CheckpointFile.content(of: bytes))")
            return
        }
    }

    // MARK: Doubts

    private func found(_ name: String, _ change: (inout CheckpointSide) -> Void = { _ in })
        -> CheckpointSide
    {
        var side = CheckpointSide(name: name, identity: "here \(name)", size: Self.gib)
        side.counter = ("b1", TargetMark(text: "c-\(name)", equivalents: ["c-\(name)"]))
        change(&side)
        return side
    }

    private func doubt(
        source: (inout CheckpointSide) -> Void = { _ in },
        target: (inout CheckpointSide) -> Void = { _ in },
        options: (inout Replication.Options) -> Void = { _ in }
    ) -> String? {
        var all = Replication.Options()
        options(&all)
        return Self.record.doubt(
            found("s", source), found("t", target), CheckpointRecord.Settings(all))?.word
    }

    @Test func `without a change nothing is in doubt`() {
        #expect(doubt() == nil)
        // A later version of the same group's metadata.
        #expect(
            doubt(target: {
                $0.counter = ("b1", TargetMark(text: "new", equivalents: ["new", "c-t"]))
            }) == nil)
        #expect(doubt(options: { $0.blockSize = 65536 }) == nil)
    }

    @Test func `each change of a side or an option is a doubt`() {
        let changes: [(String, (inout CheckpointSide) -> Void)] = [
            ("other-pair", { $0.identity = "here other" }),
            ("no-change-counter", { $0.counter = nil }),
            ("restarted", { $0.counter?.boot = "b2" }),
            ("resized", { $0.size += 512 }),
            ("written", { $0.counter?.mark = TargetMark(text: "x", equivalents: ["x"]) }),
        ]
        for (word, change) in changes {
            #expect(doubt(source: change) == word)
            #expect(doubt(target: change) == word)
        }
        #expect(doubt(options: { $0.wholeFile = true }) == "other-options")
        #expect(doubt(options: { $0.sizePolicy = .prefix }) == "other-options")
        #expect(doubt(options: { $0.movesBackupTable = true }) == "other-options")
    }

    // MARK: Samples

    @Test(arguments: UInt64(1)...100)
    func `both samples are of what is done, and at most a twentieth of it`(seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        let size = Int.random(in: 1...(512 << 20), using: &random)
        var done: [ByteRange] = []
        var position = 0
        while position < size, done.count < 100 {
            let start = Int.random(in: position...size, using: &random)
            let end = min(size, start + Int.random(in: 0...(64 << 20), using: &random))
            if start < end { done.append(ByteRange(start, to: end)) }
            position = end + 1
        }
        let unit = [64 << 10, 128 << 10, 1 << 20][Int(seed % 3)]
        let fresh = DoneSample.fresh(in: done, unit: unit, size: size, seed: seed)
        let kept = DoneSample.kept(in: done, size: size, seed: seed)
        for place in fresh + kept {
            #expect(done.contains { $0.offset <= place.offset && place.end <= $0.end })
        }
        #expect((fresh.byteCount + kept.byteCount) * 20 <= done.byteCount)
        #expect(Set(fresh).count == fresh.count && fresh == fresh.sorted { $0.offset < $1.offset })
        #expect(fresh.allSatisfy { $0.offset % unit == 0 })
        #expect(DoneSample.fresh(in: done, unit: unit, size: size, seed: seed) == fresh)
        if fresh.count > 20 {
            #expect(DoneSample.fresh(in: done, unit: unit, size: size, seed: seed + 1) != fresh)
        }
    }
}
