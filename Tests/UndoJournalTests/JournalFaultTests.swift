// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import DeviceProbe
import Foundation
import LinuxIO
import Synchronization
import TestSupport
import Testing

@testable import UndoJournal

/// Journals that are given up, cut off or damaged, and targets that grow.
extension UndoJournalTests {
    /// A device whose flush zeros what is behind the replica, as that of a logical volume does.
    private final class TailZeroingDevice: WrappingDevice {
        let base: any BlockDevice
        private let tail: ByteRange

        init(_ base: any BlockDevice, _ tail: ByteRange) { (self.base, self.tail) = (base, tail) }

        func read(into buffer: UnsafeMutableRawBufferPointer, at offset: Int) throws(IOError) {
            try base.read(into: buffer, at: offset)
        }
        func write(_ buffer: UnsafeRawBufferPointer, at offset: Int) throws(IOError) {
            try base.write(buffer, at: offset)
        }
        func zero(_ range: ByteRange) throws(IOError) { try base.zero(range) }
        var zeroedByFlush: ByteRange? { tail }
        func flush() throws(IOError) {
            let start = tail.offset.roundedUp(to: 512)
            try base.zero(ByteRange(start, to: tail.end))
        }
    }

    @Test func `what a flush zeros behind the replica is in the journal`() throws {
        let original = seeded(size, seed: 5)
        let memory = MemoryDevice(original)
        let journal = try writer()
        let tail = ByteRange(size - 5000, to: size)
        let device = JournaledDevice(TailZeroingDevice(memory, tail), journal)
        try device.flush()
        #expect(memory.bytes != original)
        #expect(!journal.isEmpty)
        let path = scratch.file("copy")
        try FileManager.default.copyItem(atPath: journal.path, toPath: path)
        #expect(try replay(JournalReader(path), onto: memory.bytes) == original)
    }

    @Test func `a flush that zeros nothing leaves no journal`() throws {
        let memory = MemoryDevice([UInt8](repeating: 0, count: size))
        let journal = try writer()
        let tail = ByteRange(size - 5000, to: size)
        try JournaledDevice(TailZeroingDevice(memory, tail), journal).flush()
        #expect(journal.isEmpty)
    }

    @Test func `a target that only grows has a journal, and what is added is not kept`() throws {
        let memory = MemoryDevice(seeded(size, seed: 5))
        let journal = try writer()
        let device = JournaledDevice(memory, journal)
        try device.resize(to: 2 * size)
        #expect(!journal.isEmpty)
        let before = journal.size
        let new = AlignedBuffer(count: 4096)
        try device.write(UnsafeRawBufferPointer(new.bytes), at: size)
        #expect(journal.size == before)
        try journal.finish(JournalEnd(isComplete: true, counter: nil))
        #expect(FileManager.default.fileExists(atPath: journal.path))
    }

    /// At every moment, also with threads that write at once, the journal covers what was written, or
    /// says that it does not.
    @Test func `a journal that is given up says so before the first write without it`() throws {
        let original = seeded(size, seed: 8)
        let memory = MemoryDevice(original)
        let journal = try writer(limit: 60_000, whenFull: .continue)
        let watched = WatchedDevice(memory, journal: journal.path)
        let device = JournaledDevice(watched, journal)
        Threads.start(count: 4) { thread in
            let new = AlignedBuffer(count: 4096)
            for index in 0..<8 {
                try? device.write(
                    UnsafeRawBufferPointer(new.bytes), at: (index * 4 + thread) * 4096)
            }
        }.wait()
        #expect(journal.isAbandoned)
        var refused = 0
        for moment in watched.moments.withLock({ $0 }) {
            let path = scratch.file("moment")
            try Data(moment.journal).write(to: URL(fileURLWithPath: path))
            do {
                let back = try replay(JournalReader(path), onto: moment.target)
                #expect(back == original)
            } catch {
                refused += 1
            }
        }
        #expect(refused > 0)
    }

    @Test func `a torn page that gives the journal up still does`() throws {
        let (path, _) = try filled()
        var bytes = try [UInt8](Data(contentsOf: URL(fileURLWithPath: path)))
        bytes[4096 + 700] = 0xFF
        try Data(bytes).write(to: URL(fileURLWithPath: path))
        let error = #expect(throws: IOError.self) { try JournalReader(path).content { false } }
        #expect(error?.reason.contains("incomplete") == true)
    }

    @Test func `a journal that is shorter than at the end of its run is refused`() throws {
        let (path, starts) = try filled()
        let bytes = try Data(contentsOf: URL(fileURLWithPath: path))
        for size in starts + [bytes.count - 1, bytes.count - 200] {
            let short = scratch.file("short")
            try bytes.prefix(size).write(to: URL(fileURLWithPath: short))
            let error = #expect(throws: IOError.self) {
                try JournalReader(short).content { false }
            }
            #expect(error?.cause == .wrongKind, "\(size)")
        }
    }

    @Test func `a record that may be torn is named, so that the target can be asked`() throws {
        let journal = try writer()
        let old = seeded(4096, seed: 1)
        for index in 0..<3 {
            try old.withUnsafeBytes {
                try journal.save([.init(offset: index * 4096, length: 4096, bytes: $0)])
            }
        }
        var bytes = try [UInt8](Data(contentsOf: URL(fileURLWithPath: journal.path)))
        // In the payload of the last record, and in its first head.
        for place in [bytes.count - 1000, bytes.count - 4096 - 240 + 20] {
            bytes[place] ^= 1
            let damaged = scratch.file("damaged")
            try Data(bytes).write(to: URL(fileURLWithPath: damaged))
            var content = try JournalReader(damaged).content { false }
            #expect(content.torn.map(\.range.offset) == [8192])
            #expect(try content.torn[0].holds(old))
            #expect(try !content.torn[0].holds(seeded(4096, seed: 2)))
            // A rollback that has begun needs no second decision.
            try JournalReader(damaged).begin(&content)
            let again = try JournalReader(damaged).content { false }
            #expect(again.isRollingBack && again.torn.isEmpty && again.records == 3)
            bytes[place] ^= 1
        }
    }

    @Test func `a target is the same only if that is proved`() {
        func identity(
            _ facts: [String], unique: Bool, attachment: Int?, boot: String? = "a"
        ) -> TargetIdentity {
            var identity = TargetIdentity(facts: facts, isUnique: unique, number: 5)
            identity.attachment = attachment
            identity.boot = boot
            return identity
        }
        let serial = identity(["WWN=1"], unique: true, attachment: 1)
        #expect(
            serial.relation(to: identity(["WWN=1"], unique: true, attachment: 2, boot: "b"))
                == .same)
        #expect(serial.relation(to: identity(["WWN=2"], unique: true, attachment: 1)) == .other)
        let name = identity(["NAME=vda"], unique: false, attachment: 1)
        #expect(name.relation(to: identity(["NAME=vda"], unique: false, attachment: 1)) == .same)
        #expect(name.relation(to: identity(["NAME=vda"], unique: false, attachment: 2)) == .other)
        #expect(
            name.relation(to: identity(["NAME=vda"], unique: false, attachment: 1, boot: "b"))
                == .unknown)
        let old = identity(["NAME=vda"], unique: false, attachment: nil)
        #expect(old.relation(to: old) == .unknown)
        // An image of a btrfs snapshot; after a restart file systems have other numbers.
        let image = identity(["INODE=5", "BORN=7"], unique: true, attachment: 5)
        var snapshot = image
        snapshot.number = 6
        #expect(image.relation(to: image) == .same)
        #expect(image.relation(to: snapshot) == .unknown)
        snapshot.boot = "b"
        #expect(image.relation(to: snapshot) == .same)
        let loop = ["INODE=5", "BORN=7", "OFFSET=0"]
        #expect(image.aliases.map(\.facts) == [loop])
        let partition = identity(loop + ["PARTUUID=a", "START=2048"], unique: true, attachment: 1)
        #expect(partition.aliases.map(\.facts) == [image.facts])
        #expect(serial.aliases.isEmpty)
    }
}
