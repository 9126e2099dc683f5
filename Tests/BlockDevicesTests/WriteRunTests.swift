// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import LinuxIO
import Synchronization
import SystemPackage
import TestSupport
import Testing

@testable import BlockDevices

/// Extents that touch go out together, and short runs of zeros with them.
@Suite struct WriteRunTests {
    /// A device that counts what is asked of it.
    private final class Bench: SteadyDevice {
        let memory: MemoryDevice
        let shortZeros: Int
        let calls = Mutex<[String]>([])
        /// Writes that touch it fail.
        let bad: ByteRange?

        init(size: Int, shortZeros: Int, bad: ByteRange? = nil) {
            memory = MemoryDevice([UInt8](repeating: 9, count: size))
            self.shortZeros = shortZeros
            self.bad = bad
        }

        var name: String { "bench" }
        var geometry: Geometry { memory.geometry }

        func read(into buffer: UnsafeMutableRawBufferPointer, at offset: Int) throws(IOError) {
            try memory.read(into: buffer, at: offset)
        }

        func write(_ buffer: UnsafeRawBufferPointer, at offset: Int) throws(IOError) {
            let range = ByteRange(offset: offset, length: buffer.count)
            calls.withLock { $0.append("write \(offset) \(buffer.count)") }
            if bad?.overlaps(range) == true { throw IOError(name, "write", .ioError) }
            try memory.write(buffer, at: offset)
        }

        func zero(_ range: ByteRange) throws(IOError) {
            calls.withLock { $0.append("zero \(range.offset) \(range.length)") }
            try memory.zero(range)
        }

        func flush() throws(IOError) {}
    }

    private func data(_ offset: Int, _ length: Int) -> Extent {
        Extent(ByteRange(offset: offset, length: length), .data)
    }

    private func zero(_ offset: Int, _ length: Int) -> Extent {
        Extent(ByteRange(offset: offset, length: length), .zero)
    }

    private func runs(_ extents: [Extent], _ short: Int, longest: Int = .max) -> [[Int]] {
        WriteRun.runs(of: extents, shortZeros: short, longest: longest)
            .map { [$0.range.offset, $0.range.length, $0.extents.count] }
    }

    @Test func `adjacent extents are one run, and extents apart are not`() {
        let extents = [data(0, 512), zero(512, 512), data(1024, 512), data(2048, 512)]
        #expect(runs(extents, 1024) == [[0, 1536, 3], [2048, 512, 1]])
        #expect(runs(extents, 512) == [[0, 512, 1], [1024, 512, 1], [2048, 512, 1]])
        #expect(runs([zero(0, 512), zero(1024, 4096)], 1024) == [[0, 512, 1]])
        #expect(runs([], 1024) == [])
    }

    @Test func `a run is no longer than its memory, but for one extent`() {
        let extents = [data(0, 4096), zero(4096, 512), data(4608, 512)]
        #expect(runs(extents, 1024, longest: 4608) == [[0, 4608, 2], [4608, 512, 1]])
        #expect(runs(extents, 1024, longest: 1024) == [[0, 4096, 1], [4096, 1024, 2]])
    }

    /// Writes extents as the server and the engine do, and gives the bytes they should come to.
    private func write(_ extents: [Extent], to bench: Bench, staging count: Int) -> [UInt8] {
        var (bytes, wanted) = ([UInt8](), bench.memory.bytes)
        for extent in extents {
            let fill = extent.kind == .zero ? 0 : UInt8(1 + extent.range.offset / 512 % 7)
            for index in extent.range.offset..<extent.range.end { wanted[index] = fill }
            if extent.kind == .data {
                bytes += [UInt8](repeating: fill, count: extent.range.length)
            }
        }
        let memory = AlignedBuffer(count: max(bytes.count, 1))
        memory.bytes.copyBytes(from: bytes)
        let staging = AlignedBuffer(count: count)
        let data = UnsafeRawBufferPointer(rebasing: memory.bytes[..<bytes.count])
        let done = bench.attempt(
            extents, of: data,
            staging: UnsafeMutableRawBufferPointer(rebasing: staging.bytes[..<count]))
        var position = 0
        for (extent, isDone) in zip(extents, done) {
            let end = position + (extent.kind == .data ? extent.range.length : 0)
            defer { position = end }
            if isDone { continue }
            if extent.kind == .zero {
                try? bench.zero(extent.range)
            } else {
                try? bench.write(
                    UnsafeRawBufferPointer(rebasing: data[position..<end]), at: extent.range.offset)
            }
        }
        return wanted
    }

    @Test func `zeros between data are written with the data, in one write`() {
        let bench = Bench(size: 8192, shortZeros: 1024)
        let wanted = write(
            [data(512, 512), zero(1024, 512), data(1536, 1024), zero(3072, 2048)], to: bench,
            staging: 8192)
        #expect(bench.memory.bytes == wanted)
        #expect(bench.calls.withLock { $0 } == ["write 512 2048", "zero 3072 2048"])
    }

    @Test func `zeros are zeroed, however few, on a device where they take no room`() {
        let bench = Bench(size: 8192, shortZeros: 0)
        let wanted = write([data(512, 512), zero(1024, 512)], to: bench, staging: 8192)
        #expect(bench.memory.bytes == wanted)
        #expect(bench.calls.withLock { $0 } == ["write 512 512", "zero 1024 512"])
    }

    @Test func `a bad sector costs no more than its own extent`() {
        let bench = Bench(size: 8192, shortZeros: 1024, bad: ByteRange(offset: 1024, length: 512))
        var wanted = write(
            [data(512, 512), data(1024, 512), zero(1536, 512), data(2048, 512)], to: bench,
            staging: 8192)
        for index in 1024..<1536 { wanted[index] = 9 }
        #expect(bench.memory.bytes == wanted)
    }

    @Test func `any extents give the same bytes, whatever the memory`() {
        var random = SeededGenerator(seed: 7)
        for _ in 0..<300 {
            let bench = Bench(
                size: 64 << 10, shortZeros: 512 * Int.random(in: 0...8, using: &random))
            var extents: [Extent] = []
            var offset = 0
            while offset < 60 << 10 {
                let length = 512 * Int.random(in: 1...9, using: &random)
                if Bool.random(using: &random) {
                    offset += 512 * Int.random(in: 0...3, using: &random)
                }
                guard offset + length <= 64 << 10 else { break }
                extents.append(
                    Bool.random(using: &random) ? data(offset, length) : zero(offset, length))
                offset += length
            }
            let staging = 4096 * Int.random(in: 1...4, using: &random)
            let wanted = write(extents, to: bench, staging: staging)
            #expect(bench.memory.bytes == wanted)
        }
    }
}

/// Numbers that a driver, a file system or a user may give.
@Suite struct AbsurdNumberTests {
    @Test(arguments: [0, 1, 511, 513, 1000, 3 << 9, 128 << 10, -512, Int.max, Int.min])
    func `an impossible sector size is refused`(bytes: Int) {
        #expect(!Geometry.isLogicalSector(bytes))
    }

    @Test(arguments: [512, 1024, 4096, 64 << 10]) func `a possible sector size is accepted`(
        bytes: Int
    ) {
        #expect(Geometry.isLogicalSector(bytes))
    }

    @Test func `sector counts of sysfs never overflow, nor does an offset plus a size`() {
        #expect(Geometry.bytes(ofSectors: "8") == 4096 && Geometry.bytes(ofSectors: nil) == 0)
        for text in ["-1", "x", "", "99999999999999999999999"] {
            #expect(Geometry.bytes(ofSectors: text) == 0)
        }
        for text in ["\(UInt64.max)", "\(Int.max)", "36028797018963968"] {
            let bytes = Geometry.bytes(ofSectors: text)
            #expect(bytes > 1 << 61 && !bytes.addingReportingOverflow(bytes).overflow)
        }
    }

    @Test func `without a usable alignment there is no direct I/O`() {
        #expect(DirectFile.alignment(offset: 512, memory: 4) == 512)
        #expect(DirectFile.alignment(offset: 4096, memory: 512) == 4096)
        for (offset, memory) in [
            (0, 512), (1000, 512), (512, 1000), (1 << 30, 512), (512, 1 << 30),
            (Int(UInt32.max), 4),
        ] {
            #expect(DirectFile.alignment(offset: offset, memory: memory) == nil)
        }
    }
}
