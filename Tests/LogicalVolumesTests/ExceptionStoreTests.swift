// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import LinuxIO
import LogicalVolumes
import Synchronization
import TestSupport
import Testing

/// A store as the kernel writes it, to be damaged.
private struct MadeUpStore {
    var magic: UInt32 = 0x7041_6E53
    var valid: UInt32 = 1
    var version: UInt32 = 1
    /// Sectors of 512 bytes.
    var chunkSize: UInt32 = 1
    /// Chunks of the device.
    var count = 256
    /// Chunks of the origin and their copies.
    var entries: [(UInt64, UInt64)] = []

    var chunk: Int { Int(chunkSize) * 512 }
    var perArea: Int { chunk / 16 }

    init() {}

    /// As the kernel allocates: one data chunk after the other, areas left out.
    init(copying chunks: [UInt64], chunkSize: UInt32 = 1, count: Int = 256) {
        self.chunkSize = chunkSize
        self.count = count
        var next = 2
        for chunk in chunks {
            entries.append((chunk, UInt64(next)))
            next += 1
            if next % (perArea + 1) == 1 { next += 1 }
        }
    }

    var device: MemoryDevice {
        var bytes = [UInt8](repeating: 0, count: max(512, chunk * count))
        func put<Value: FixedWidthInteger>(_ value: Value, at offset: Int) {
            withUnsafeBytes(of: value.littleEndian) {
                bytes.replaceSubrange(offset..<offset + $0.count, with: $0)
            }
        }
        for (index, word) in [magic, valid, version, chunkSize].enumerated() {
            put(word, at: 4 * index)
        }
        for (index, entry) in entries.enumerated() {
            let area = 1 + index / perArea * (perArea + 1)
            let offset = area * chunk + index % perArea * 16
            guard offset + 16 <= bytes.count else { break }
            put(entry.0, at: offset)
            put(entry.1, at: offset + 8)
        }
        return MemoryDevice(bytes, name: "vg0-snap-cow")
    }

    /// The map of an origin of so many chunks.
    func map(of chunks: Int = 1000) throws(IOError) -> ChangeMap {
        try ExceptionStore(device).map(size: chunks * chunk, oldSize: chunks * chunk) { false }
    }
}

/// A store with chunks of 2 MiB, larger than memory: the copy of every third chunk.
private final class ComputedStore: SteadyDevice {
    static let chunk = 2 << 20
    private static let perArea = chunk / 16
    let name = "computed"
    let geometry = Geometry(size: 1 << 40, logicalSector: 512, alignment: 512)
    let longestRead = Atomic(0)
    private let entryCount: Int

    init(entryCount: Int) { self.entryCount = entryCount }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: Int) throws(IOError) {
        longestRead.max(buffer.count, ordering: .relaxed)
        for index in stride(from: 0, to: buffer.count, by: 16) {
            let (old, copy) = entry(at: offset + index)
            buffer.storeBytes(of: old.littleEndian, toByteOffset: index, as: UInt64.self)
            buffer.storeBytes(of: copy.littleEndian, toByteOffset: index + 8, as: UInt64.self)
        }
    }

    /// Sixteen bytes, as two numbers.
    private func entry(at offset: Int) -> (UInt64, UInt64) {
        let (chunk, slot) = (offset / Self.chunk, offset % Self.chunk / 16)
        guard chunk > 0 else { return (1 << 32 | 0x7041_6E53, 4096 << 32 | 1) }
        let index = chunk / (Self.perArea + 1) * Self.perArea + slot
        guard index < entryCount else { return (0, 0) }
        let copy = index / Self.perArea * (Self.perArea + 1) + index % Self.perArea + 2
        return (UInt64(3 * index), UInt64(copy))
    }

    func write(_ buffer: UnsafeRawBufferPointer, at offset: Int) throws(IOError) {
        throw IOError(name, "write", reason: "it cannot be written")
    }

    func zero(_ range: ByteRange) throws(IOError) {
        throw IOError(name, "zero", reason: "it cannot be written")
    }

    func flush() throws(IOError) {}
}

@Suite struct ExceptionStoreTests {
    @Test func `an empty exception store is an empty map`() throws {
        #expect(try MadeUpStore().map().ranges == [])
    }

    @Test func `the chunks of the origin are the map, adjacent chunks joined`() throws {
        let map = try MadeUpStore(copying: [7, 3, 8, 999, 0, 4]).map()
        #expect(
            map.ranges == [
                ByteRange(0, to: 512), ByteRange(3 * 512, to: 5 * 512),
                ByteRange(7 * 512, to: 9 * 512), ByteRange(999 * 512, to: 1000 * 512),
            ])
    }

    @Test(arguments: [31, 32, 33, 63, 64, 65, 200])
    func `a full area of the store continues in the next area`(count: Int) throws {
        let map = try MadeUpStore(copying: (0..<UInt64(count)).map { $0 * 2 }).map()
        #expect(map.ranges.map(\.offset) == (0..<count).map { $0 * 1024 })
        #expect(map.byteCount == count * 512)
    }

    @Test func `areas larger than one read are read in pieces`() throws {
        let store = ComputedStore(entryCount: 140_000)
        let size = 3 * 140_000 * ComputedStore.chunk
        let map = try ExceptionStore(store).map(size: size, oldSize: size) { false }
        #expect(map.ranges.map(\.offset) == (0..<140_000).map { 3 * $0 * ComputedStore.chunk })
        #expect(store.longestRead.load(ordering: .relaxed) == 1 << 20)
    }

    @Test func `the last chunk ends with the snapshot, and growth of the origin is changed`() throws
    {
        let store = MadeUpStore(copying: [3], chunkSize: 8)
        let size = 3 * 4096 + 512
        #expect(
            try ExceptionStore(store.device).map(size: size, oldSize: size) { false }.ranges
                == [ByteRange(3 * 4096, to: size)])
        #expect(
            try ExceptionStore(store.device).map(size: 9 * 4096, oldSize: 5 * 4096) { false }.ranges
                == [ByteRange(3 * 4096, to: 4 * 4096), ByteRange(5 * 4096, to: 9 * 4096)])
        #expect(
            try ExceptionStore(store.device).map(size: 4096, oldSize: 5 * 4096) { false }.ranges
                == [])
    }

    @Test(arguments: UInt64(0)..<40)
    func `any set of chunks in any order is read from the store`(seed: UInt64) throws {
        var random = SeededGenerator(seed: seed)
        let size: UInt32 = 1 << UInt32.random(in: 0...4, using: &random)
        let chunks = (0..<UInt64(1000)).shuffled(using: &random)
            .prefix(Int.random(in: 0...900, using: &random))
        let store = MadeUpStore(copying: Array(chunks), chunkSize: size, count: 1000)
        let map = try store.map()
        let expected = Set(chunks)
        for chunk in 0..<1000 {
            let range = ByteRange(offset: chunk * store.chunk, length: store.chunk)
            #expect(map.overlaps(range) == expected.contains(UInt64(chunk)))
        }
        #expect(map.byteCount == expected.count * store.chunk)
    }

    private static let damages: [(String, @Sendable (inout MadeUpStore) -> Void)] = [
        ("it does not start as one", { $0.magic = 0 }),
        ("it does not start as one", { $0.magic = $0.magic.byteSwapped }),
        ("the snapshot is invalid", { $0.valid = 0 }),
        ("its version is 2, not 1", { $0.version = 2 }),
        ("its version is 0, not 1", { $0.version = 0 }),
        ("its chunks are of 3 sectors", { $0.chunkSize = 3 }),
        ("chunk 256 is beyond the end", { $0.entries[1].1 = 256 }),
        ("is beyond the end", { $0.entries[1].1 = .max }),
        ("chunk 1, which is not for data", { $0.entries[1].1 = 1 }),
        ("chunk 34, which is not for data", { $0.entries[1].1 = 34 }),
        ("chunk 67, which is not for data", { $0.entries[1].1 = 67 }),
        ("chunk 5 is copied twice", { $0.entries[1].0 = 5 }),
        ("chunk 2 is the copy of two", { $0.entries[1].1 = 2 }),
        ("chunk 1000 is beyond the snapshot's end", { $0.entries[1].0 = 1000 }),
        ("is beyond the snapshot's end", { $0.entries[1].0 = .max }),
        ("area 0 is beyond the end", { $0.count = 1 }),
        (
            "area 1 is beyond the end",
            {
                $0 = MadeUpStore(copying: Array(0..<32), count: 34)
            }
        ),
    ]

    @Test(arguments: damages.indices)
    func `a damaged store is no map`(index: Int) {
        let (reason, damage) = Self.damages[index]
        var store = MadeUpStore(copying: [5, 6, 7])
        damage(&store)
        let error = #expect(throws: IOError.self) { try store.map() }
        #expect(error?.reason.contains(reason) == true, "\(error?.reason ?? "") for \(reason)")
        #expect(error?.object == "vg0-snap-cow")
    }

    @Test func `chunks of 0 sectors, or of more than a kernel accepts, are no map`() {
        for sectors in [0, 1 << 31] as [UInt32] {
            var bytes = MadeUpStore().device.bytes
            withUnsafeBytes(of: sectors.littleEndian) { bytes.replaceSubrange(12..<16, with: $0) }
            #expect(throws: IOError.self) { try ExceptionStore(MemoryDevice(bytes)) }
        }
        #expect(throws: IOError.self) { try ExceptionStore(MemoryDevice([])) }
    }

    @Test func `the error of a store that cannot be read gives the reason`() throws {
        var faults = FaultyDevice.Faults()
        faults.unreadable = [ByteRange(offset: 512, length: 512)]
        let device = FaultyDevice(MadeUpStore(copying: [1]).device, faults)
        let error = #expect(throws: IOError.self) {
            try ExceptionStore(device).map(size: 4096, oldSize: 4096) { false }
        }
        #expect(error?.reason.contains("Input/output error") == true)
    }

    @Test func `a cancelled run stops reading the store`() throws {
        let store = try ExceptionStore(MadeUpStore(copying: [1]).device)
        let error = #expect(throws: IOError.self) {
            try store.map(size: 4096, oldSize: 4096) { true }
        }
        #expect(error?.kind == .cancelled)
    }
}
