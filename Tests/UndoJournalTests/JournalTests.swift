// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import Foundation
import LinuxIO
import Synchronization
import TestSupport
import Testing

@testable import UndoJournal

func seeded(_ count: Int, seed: UInt64) -> [UInt8] {
    var generator = SeededGenerator(seed: seed)
    var bytes = [UInt8](repeating: 0, count: count)
    bytes.withUnsafeMutableBytes { generator.fill($0) }
    return bytes
}

/// A journal of a device in memory, which is cut off at any moment.
@Suite(.blocking, .timeLimit(.minutes(60))) struct UndoJournalTests {
    let scratch: ScratchDirectory
    let size = 256 << 10

    init() throws { scratch = try ScratchDirectory() }

    var header: JournalHeader {
        JournalHeader(
            target: "/dev/target", source: "/dev/source", size: size, isImage: false, began: 1)
    }

    func writer(
        _ name: String = "journal", limit: Int? = nil, whenFull: JournalWriter.WhenFull = .stop
    ) throws -> JournalWriter {
        try JournalWriter(creating: scratch.file(name), header, limit: limit, whenFull: whenFull)
    }

    func replay(_ reader: JournalReader, onto bytes: [UInt8]) throws -> [UInt8] {
        var bytes = bytes
        let content = try reader.content { false }
        try reader.replay(content) { range, old throws(IOError) in
            for index in 0..<range.length where range.offset + index < bytes.count {
                bytes[range.offset + index] = old?[index] ?? 0
            }
        }
        return bytes
    }

    /// A state of the medium: the target, and the journal up to its last flush.
    struct Moment {
        var target: [UInt8]
        var journal: [UInt8]
    }

    /// Notes, at each write, what a power cut in its middle would leave.
    final class WatchedDevice: WrappingDevice {
        let base: any BlockDevice
        private let memory: MemoryDevice
        private let journal: String
        let moments = Mutex<[Moment]>([])

        init(_ memory: MemoryDevice, journal: String) {
            base = memory
            self.memory = memory
            self.journal = journal
        }

        func read(into buffer: UnsafeMutableRawBufferPointer, at offset: Int) throws(IOError) {
            try base.read(into: buffer, at: offset)
        }

        func write(_ buffer: UnsafeRawBufferPointer, at offset: Int) throws(IOError) {
            // Sectors are torn in no order.
            var torn = memory.bytes
            for sector in stride(from: 0, to: buffer.count, by: 1024) {
                for index in sector..<min(sector + 512, buffer.count) {
                    torn[offset + index] = buffer[index]
                }
            }
            note(torn)
            try base.write(buffer, at: offset)
            note(memory.bytes)
        }

        func zero(_ range: ByteRange) throws(IOError) {
            note(memory.bytes)
            try base.zero(range)
            note(memory.bytes)
        }

        func resize(to size: Int) throws(IOError) {
            note(memory.bytes)
            try base.resize(to: size)
            note(memory.bytes)
        }

        func flush() throws(IOError) { try base.flush() }

        private func note(_ target: [UInt8]) {
            let bytes = FileManager.default.contents(atPath: journal).map { [UInt8]($0) } ?? []
            moments.withLock { $0.append(Moment(target: target, journal: bytes)) }
        }
    }

    @Test(arguments: 1...8)
    func `a journal brings the target back from every moment, also from torn writes`(seed: UInt64)
        throws
    {
        var random = SplitMix64(seed: seed)
        var original = seeded(size, seed: seed)
        // Some zeros, which need no payload.
        for index in 100_000..<150_000 { original[index] = 0 }
        let memory = MemoryDevice(original, knowsHoles: true)
        let journal = try writer()
        let watched = WatchedDevice(memory, journal: journal.path)
        let device = JournaledDevice(watched, journal)
        for _ in 0..<30 {
            let offset = Int.random(in: 0..<device.geometry.size / 512, using: &random) * 512
            let rest = device.geometry.size - offset
            let length = min(rest, Int.random(in: 1...40, using: &random) * 512)
            guard length > 0 else { continue }
            switch Int.random(in: 0..<8, using: &random) {
            case 0: try device.zero(ByteRange(offset: offset, length: length))
            case 1: try device.resize(to: max(512 * 64, device.geometry.size - 512 * 40))
            case 2: try device.resize(to: device.geometry.size + 512 * 40)
            default:
                let bytes = AlignedBuffer(count: length)
                bytes.bytes.copyBytes(from: seeded(length, seed: seed + 99))
                let old = slice(UnsafeRawBufferPointer(bytes.bytes), 0, length)
                let done = device.attempt([Transfer(of: old, at: offset)], .write)
                if done == [false] { try device.write(old, at: offset) }
            }
        }
        let moments = watched.moments.withLock { $0 }
        #expect(moments.count > 20)
        for (number, moment) in moments.enumerated() {
            for tail in [[], [UInt8](repeating: 0, count: 5000), Array(moment.journal.suffix(300))]
            {
                let path = scratch.file("\(number).\(tail.count)")
                try Data(moment.journal + tail).write(to: URL(fileURLWithPath: path))
                // A rollback gives the target its old size first.
                var target = Array(moment.target.prefix(size))
                target += [UInt8](repeating: 0, count: size - target.count)
                let back = try replay(JournalReader(path), onto: target)
                #expect(back == original, "moment \(number)")
                try FileManager.default.removeItem(atPath: path)
            }
        }
    }

    /// A journal of some records, and where each starts.
    func filled() throws -> (path: String, starts: [Int]) {
        let journal = try writer()
        var starts: [Int] = []
        for index in 0..<5 {
            starts.append(journal.size)
            try seeded(4096, seed: UInt64(index)).withUnsafeBytes {
                try journal.save([.init(offset: index * 4096, length: 4096, bytes: $0)])
            }
        }
        try journal.finish(JournalEnd(isComplete: true, counter: [1, 2]))
        return (journal.path, starts)
    }

    @Test func `the end of a run is in its journal`() throws {
        let (path, _) = try filled()
        let content = try JournalReader(path).content { false }
        #expect(content.end == JournalEnd(isComplete: true, counter: [1, 2]))
        #expect(content.records == 6 && content.data == 5 * 4096)
        #expect(!content.isRolledBack)
    }

    @Test func `damage before the torn tail is no torn tail`() throws {
        let (path, starts) = try filled()
        for place in [starts[0] + 5, starts[1] + 200, starts[3] + 100] {
            var bytes = try [UInt8](Data(contentsOf: URL(fileURLWithPath: path)))
            bytes[place] ^= 1
            let damaged = scratch.file("damaged")
            try Data(bytes).write(to: URL(fileURLWithPath: damaged))
            let error = #expect(throws: IOError.self) {
                try JournalReader(damaged).content { false }
            }
            #expect(error?.cause == .wrongKind)
            #expect(error?.reason.contains("damaged") == true)
        }
    }

    @Test func `a file that is no journal is refused`() throws {
        for bytes in [[], [UInt8](repeating: 0, count: 10_000), Array("BLKFUNDO".utf8)] {
            let path = scratch.file("other")
            try Data(bytes).write(to: URL(fileURLWithPath: path))
            let error = #expect(throws: IOError.self) { try JournalReader(path) }
            #expect(error?.cause == .wrongKind)
        }
    }

    @Test func `a journal whose first page was changed is refused`() throws {
        let (path, _) = try filled()
        var bytes = try [UInt8](Data(contentsOf: URL(fileURLWithPath: path)))
        bytes[60] ^= 1
        try Data(bytes).write(to: URL(fileURLWithPath: path))
        let error = #expect(throws: IOError.self) { try JournalReader(path) }
        #expect(error?.cause == .wrongKind)
    }

    @Test func `a file that exists is kept`() throws {
        _ = try filled()
        let before = try Data(contentsOf: URL(fileURLWithPath: scratch.file("journal")))
        let error = #expect(throws: IOError.self) { try writer() }
        #expect(error?.cause == .nameTaken)
        #expect(try Data(contentsOf: URL(fileURLWithPath: scratch.file("journal"))) == before)
    }

    @Test func `at its limit a run ends, and what was written can be rolled back`() throws {
        let original = seeded(size, seed: 7)
        let memory = MemoryDevice(original)
        let journal = try writer(limit: 50_000)
        let device = JournaledDevice(memory, journal)
        let new = AlignedBuffer(count: 4096)
        var written = 0
        let error = #expect(throws: IOError.self) {
            for offset in stride(from: 0, to: size, by: 4096) {
                try device.write(UnsafeRawBufferPointer(new.bytes), at: offset)
                written += 1
            }
        }
        #expect(error?.kind == .journal)
        #expect(error?.advice?.contains("rollback") == true)
        #expect((5..<12).contains(written))
        // Nothing is written after the first failure.
        #expect(throws: IOError.self) {
            try device.write(UnsafeRawBufferPointer(new.bytes), at: 0)
        }
        try? journal.finish(JournalEnd(isComplete: false, counter: nil))
        let path = scratch.file("copy")
        try FileManager.default.copyItem(atPath: journal.path, toPath: path)
        #expect(try replay(JournalReader(path), onto: memory.bytes) == original)
    }

    @Test func `a run that goes on at the limit cannot be rolled back, and the journal says so`()
        throws
    {
        let memory = MemoryDevice(seeded(size, seed: 7))
        let journal = try writer(limit: 50_000, whenFull: .continue)
        let device = JournaledDevice(memory, journal)
        let new = AlignedBuffer(count: 4096)
        for offset in stride(from: 0, to: size, by: 4096) {
            try device.write(UnsafeRawBufferPointer(new.bytes), at: offset)
        }
        #expect(journal.isAbandoned && journal.size < 51_000)
        let path = scratch.file("copy")
        try FileManager.default.copyItem(atPath: journal.path, toPath: path)
        let error = #expect(throws: IOError.self) { try JournalReader(path).content { false } }
        #expect(error?.reason.contains("incomplete") == true)
    }

    @Test func `a run that overwrites nothing leaves no journal`() throws {
        let journal = try writer()
        try journal.finish(JournalEnd(isComplete: true, counter: nil))
        #expect(!FileManager.default.fileExists(atPath: journal.path))
    }

    @Test func `threads that save at once share flushes, and lose nothing`() throws {
        let original = seeded(size, seed: 3)
        let memory = MemoryDevice(original)
        let journal = try writer()
        let device = JournaledDevice(memory, journal)
        Threads.start(count: 8) { thread in
            let new = AlignedBuffer(count: 4096)
            let half = slice(UnsafeRawBufferPointer(new.bytes), 0, 2048)
            for index in 0..<16 {
                try? device.write(half, at: (index * 8 + thread) * 2048)
            }
        }.wait()
        #expect(memory.bytes[..<(128 * 2048)].allSatisfy { $0 == 0 })
        try journal.finish(JournalEnd(isComplete: true, counter: nil))
        let path = scratch.file("copy")
        try FileManager.default.copyItem(atPath: journal.path, toPath: path)
        #expect(try replay(JournalReader(path), onto: memory.bytes) == original)
    }
}
