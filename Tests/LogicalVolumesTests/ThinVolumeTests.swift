// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import CLinuxBlock
import Foundation
import LinuxIO
import LogicalVolumes
import TestSupport
import Testing

@Suite struct ThinVolumeTests {
    @Test(
        arguments: [
            ("253:1 253:2 128 0 0", ThinChunks(size: 65536, areZeroed: true)),
            ("253:1 253:2 384 0 1 skip_block_zeroing", ThinChunks(size: 196_608, areZeroed: false)),
            (
                "253:1 253:2 2048 0 3 no_discard_passdown skip_block_zeroing error_if_no_space",
                ThinChunks(size: 1 << 20, areZeroed: false)
            ),
            ("253:1 253:2 128 0 1 ignore_discard", ThinChunks(size: 65536, areZeroed: true)),
            ("", nil), ("253:1 253:2 x 0 0", nil), ("253:1 253:2 0 0 0", nil),
            ("253:1 253:2 128", nil),
        ] as [(String, ThinChunks?)])
    func `a pool's table gives its chunk size and its zeroing`(table: String, chunks: ThinChunks?) {
        #expect(MapperTable.Target(type: "thin-pool", parameters: table).chunks == chunks)
        #expect(MapperTable.Target(type: "linear", parameters: table).chunks == nil)
    }

    private static let pool = "LVM-" + String(repeating: "a", count: 64) + "-tpool"

    /// A device 253:7 on devices with these UUIDs.
    private func volume(
        on uuids: [String], granularity: String? = nil
    ) throws -> ThinChunks? {
        let scratch = try ScratchDirectory()
        func write(_ path: String, _ text: String) throws {
            let url = URL(fileURLWithPath: scratch.file(path))
            try FileManager.default.createDirectory(
                at: url.deletingLastPathComponent(), withIntermediateDirectories: true)
            try text.write(to: url, atomically: false, encoding: .utf8)
        }
        for (index, uuid) in uuids.enumerated() {
            try write("sys/dev/block/253:7/slaves/dm-\(index)", "")
            try write("sys/class/block/dm-\(index)/dm/uuid", uuid + "\n")
        }
        if let granularity {
            try write("sys/dev/block/253:7/queue/discard_granularity", granularity + "\n")
        }
        return try ThinChunks(
            of: clb_makedev(253, 7), name: "thin", sys: scratch.file("sys"),
            mapper: DeviceMapper(directory: scratch.path))
    }

    @Test
    func `a volume on a pool is thin, and without the pool's table its chunks are not zeroed`()
        throws
    {
        #expect(
            try volume(on: [Self.pool], granularity: "65536")
                == ThinChunks(size: 65536, areZeroed: false))
    }

    @Test func `a pool without a known chunk size is an error`() throws {
        #expect(throws: IOError.self) { try volume(on: [Self.pool]) }
        #expect(throws: IOError.self) { try volume(on: [Self.pool], granularity: "0") }
    }

    @Test func `a device that is not thin, or has an external origin, has no chunks`() throws {
        let linear = "LVM-" + String(repeating: "a", count: 64)
        for uuids in [[], [linear], ["CRYPT-x-tpool"], [Self.pool, linear], [linear, Self.pool]] {
            #expect(try volume(on: uuids, granularity: "65536") == nil, "\(uuids)")
        }
    }
}
