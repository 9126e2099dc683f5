// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import Testing

@testable import BlockDevices

/// Tables as the kernel tells them; real ones are in the scenarios of tools/lab.
@Suite struct MapperTableTests {
    private func number<Number: FixedWidthInteger>(_ value: Number) -> [UInt8] {
        withUnsafeBytes(of: value.littleEndian) { Array($0) }
    }

    /// `struct dm_target_spec`, and what follows it up to the next one.
    private func line(
        _ start: UInt64, _ length: UInt64, next: UInt32, _ type: String, _ parameters: String,
        status: Int32 = 0
    ) -> [UInt8] {
        var bytes = number(start) + number(length) + number(status) + number(next)
        bytes += Array(type.utf8) + [UInt8](repeating: 0, count: 16 - type.utf8.count)
        bytes += Array(parameters.utf8) + [0]
        return bytes + [UInt8](repeating: 0, count: 64 - bytes.count)
    }

    private func table(_ bytes: [UInt8], count: Int) -> MapperTable? {
        bytes.withUnsafeBytes { MapperTable($0, count: count) }
    }

    private func lines(_ parameters: String = "253:1 384", length: UInt64 = 100) -> [UInt8] {
        line(0, length, next: 64, "linear", "252:0 2048")
            + line(100, 50, next: 128, "linear", parameters)
    }

    @Test func `every line of a mapper table is read`() throws {
        let found = try #require(table(lines() + [UInt8](repeating: 0, count: 100), count: 2))
        #expect(
            found.targets == [
                .init(type: "linear", parameters: "252:0 2048", size: 100 << 9),
                .init(type: "linear", parameters: "253:1 384", size: 50 << 9),
            ])
    }

    @Test func `a mapper table's fingerprint changes with the place, length, type or order`() throws
    {
        let first = line(0, 100, next: 64, "linear", "252:0 2048")
        let second = line(100, 50, next: 128, "linear", "253:1 384")
        var all: Set<Int> = []
        for bytes in [
            lines(), lines("253:1 385"), lines(length: 101), first + first,
            line(0, 100, next: 64, "snapshot-origin", "252:0 2048") + second,
            line(0, 100, next: 64, "linear", "252:0 204") + second,
        ] {
            let found = try #require(table(bytes, count: 2))
            #expect(all.insert(found.fingerprint).inserted)
        }
        // What is behind the text, and a status, say nothing.
        var padded = lines()
        padded[60] = 7
        #expect(table(padded, count: 2)?.fingerprint == table(lines(), count: 2)?.fingerprint)
    }

    @Test func `a mapper table that is cut off, or points outside, is refused`() {
        #expect(table(lines(), count: 3) == nil)
        #expect(table(Array(lines().prefix(100)), count: 2) == nil)
        #expect(table([], count: 0) == nil && table([], count: 1) == nil)
        #expect(table(line(0, 1, next: .max, "linear", "x"), count: 2) == nil)
        #expect(table(line(0, 1 << 54, next: 64, "linear", "x"), count: 1) == nil)
    }

    @Test func `a device that the mapper does not know has no table`() {
        #expect(DeviceMapper().table(of: 0) == nil)
    }
}
