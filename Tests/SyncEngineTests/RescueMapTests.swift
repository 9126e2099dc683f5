// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import TestSupport
import Testing

@testable import SyncEngine

@Suite struct RescueMapTests {
    /// The example of ddrescue's manual.
    static let example = """
        # Mapfile. Created by GNU ddrescue version 1.27
        # Command line: ddrescue -d -c18 /dev/fd0 fdimage mapfile
        # Start time:   2015-07-21 09:37:44
        # Current time: 2015-07-21 09:38:19
        # Copying non-tried blocks... Pass 1 (forwards)
        # current_pos  current_status  current_pass
        0x00120000     ?               1
        #      pos        size  status
        0x00000000  0x00117000  +
        0x00117000  0x00000200  -
        0x00117200  0x00001000  /
        0x00118200  0x00007E00  *
        0x00120000  0x00048000  ?

        """

    @Test func `the example of the manual is read`() throws {
        let map = try RescueMap(Self.example.utf8)
        #expect(map.size == 0x168000)
        #expect(map.position == 0x120000)
        #expect(map.phase == .copying)
        #expect(map.pass == 1)
        #expect(map.areas.map(\.status) == [.finished, .bad, .unscraped, .untrimmed, .untried])
        #expect(map.bytes(.untrimmed) == 0x7E00)
        #expect(try RescueMap(map.text) == map)
    }

    @Test func `numbers are those of C++, and comments may end a line`() throws {
        let map = try RescueMap("010 - 2 # x\n\n  0 0X10 + #y\n\t16 020 -\n# blkferry: a b\n".utf8)
        #expect(map.position == 8)
        #expect(map.pass == 2)
        #expect(map.phase == .retrying)
        #expect(
            map.areas == [
                .init(ByteRange(offset: 0, length: 16), .finished),
                .init(ByteRange(offset: 16, length: 16), .bad),
            ])
        #expect(map.notes == ["a b"])
    }

    @Test func `lines may end with CR and LF`() throws {
        let map = try RescueMap("# blkferry: target /a b\r\n0 ? 1\r\n0 512 +\r\n".utf8)
        #expect(map.notes == ["target /a b"] && map.bytes(.finished) == 512)
    }

    @Test func `what is before the first area is untried, and old maps have no pass`() throws {
        let map = try RescueMap("0 +\n512 512 +\n".utf8)
        #expect(map.pass == 1)
        #expect(map.ranges(.untried) == [ByteRange(offset: 0, length: 512)])
        #expect(map.unfinished == map.ranges(.untried))
    }

    @Test(arguments: [
        ("", 1, "missing"), ("# only\n", 2, "missing"), ("0 ? 1 2\n", 1, "position"),
        ("x ? 1\n", 1, "position"), ("0 = 1\n", 1, "status"), ("0 ?? 1\n", 1, "status"),
        ("0 ? 0\n", 1, "pass"), ("0 ? 0x1\n", 1, "pass"), ("-1 ? 1\n", 1, "position"),
        ("0 ? 1\n0 512 +\n1024 512 +\n", 3, "gap"), ("0 ? 1\n0 512 +\n256 512 +\n", 3, "overlaps"),
        ("0 ? 1\n512 512 +\n0 512 +\n", 3, "overlaps"), ("0 ? 1\n0 0 +\n", 2, "size"),
        ("0 ? 1\n0 512 F\n", 2, "status"), ("0 ? 1\n0 512\n", 2, "size"),
        ("0 ? 1\n0 0xFFFFFFFFFFFFFFFF +\n", 2, "number"),
        ("0 ? 1\n0x1000000000000000 0x1 +\n", 2, "size"),
        ("0 ? 1\n0 99999999999999999999999999 +\n", 2, "number"), ("0 ? 1\n08 1 +\n", 2, "number"),
        ("0x ? 1\n", 1, "position"),
    ])
    func `a wrong text is refused with its line`(_ text: String, _ line: Int, _ reason: String) {
        let error = #expect(throws: RescueMap.Fault.self) { try RescueMap(text.utf8) }
        #expect(error?.line == line)
        #expect(error?.reason.contains(reason) == true, "\(String(describing: error))")
    }

    @Test(arguments: seeds(100))
    func `areas are what a table of bytes says`(_ seed: UInt64) throws {
        var random = SplitMix64(seed: seed)
        var map = RescueMap(size: 200)
        var bytes = [RescueMap.Status](repeating: .untried, count: 200)
        for _ in 0..<60 {
            let start = Int.random(in: 0...200, using: &random)
            let range = ByteRange(start, to: Int.random(in: start...200, using: &random))
            let status = RescueMap.Status.allCases.randomElement(using: &random)!
            let isRaised = Bool.random(using: &random)
            if isRaised { map.raise(range, to: status) } else { map.set(range, to: status) }
            for index in range.offset..<range.end {
                bytes[index] = isRaised ? max(bytes[index], status) : status
            }
        }
        #expect((0..<200).map { map.status(at: $0) } == bytes)
        for (one, next) in zip(map.areas, map.areas.dropFirst()) {
            #expect(one.range.end == next.range.offset && one.status != next.status)
        }
        for status in RescueMap.Status.allCases {
            #expect(map.bytes(status) == bytes.count { $0 == status })
        }
        #expect(try RescueMap(map.text) == map)
    }
}
