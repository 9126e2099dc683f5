// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import CLinuxBlock
import Foundation
import LinuxIO
import TestSupport
import Testing

@testable import LogicalVolumes

/// What a thin volume has mapped, and whether the rest of it certainly reads as zeros.
@Suite(.blocking, .timeLimit(.minutes(60))) struct ThinMappingTests {
    let tools: ScriptedTools

    init() throws { tools = try ScriptedTools() }

    private func targets(_ table: [(String, String)]) -> [MapperTable.Target] {
        table.map { MapperTable.Target(type: $0.0, parameters: $0.1) }
    }

    @Test func `a thin volume's table gives its id, and other tables give none`() throws {
        let rows: [([(String, String)], Int?)] = [
            ([("thin", "253:4 7")], 7), ([("thin", "253:4 0")], 0),
            ([("linear", "8:0 2048")], nil), ([("snapshot-origin", "253:4")], nil),
            ([("snapshot", "253:4 253:5 P 8")], nil), ([("thin-pool", "253:1 253:2 128 0 0")], nil),
            ([], nil),
        ]
        for (table, id) in rows {
            #expect(try ThinVolume.id(in: targets(table), of: "vg0-thin") == id, "\(table)")
        }
    }

    @Test func `a volume that may read as something other than zeros is an error`() {
        let rows: [([(String, String)], String)] = [
            ([("thin", "253:4 7 253:9")], "external origin"),
            ([("thin", "253:4")], "not known"), ([("thin", "253:4 x")], "not known"),
            ([("thin", "253:4 -1")], "not known"), ([("thin", "")], "not known"),
            ([("thin", "253:4 7"), ("linear", "8:0 2048")], "not known"),
            ([("error", ""), ("thin", "253:4 7")], "not known"),
        ]
        for (table, text) in rows {
            let error = #expect(throws: IOError.self) {
                try ThinVolume.id(in: targets(table), of: "vg0-thin")
            }
            #expect(error?.object == "vg0-thin" && error?.reason.contains(text) == true, "\(table)")
        }
    }

    private static let group = String(repeating: "a", count: 32)
    private static let uuid = "LVM-" + group + String(repeating: "b", count: 32)

    /// A device 253:7 on devices with these names; its table cannot be read.
    private func volume(uuid: String = Self.uuid, on names: [String]) throws -> ThinVolume? {
        let scratch = try ScratchDirectory()
        func write(_ path: String, _ text: String) throws {
            let url = URL(fileURLWithPath: scratch.file(path))
            try FileManager.default.createDirectory(
                at: url.deletingLastPathComponent(), withIntermediateDirectories: true)
            try text.write(to: url, atomically: false, encoding: .utf8)
        }
        try write("sys/dev/block/253:7/dm/name", "vg0-thin\n")
        try write("sys/dev/block/253:7/dm/uuid", uuid + "\n")
        for (index, name) in names.enumerated() {
            try write("sys/dev/block/253:7/slaves/dm-\(index)", "")
            try write("sys/class/block/dm-\(index)/dm/name", name + "\n")
        }
        return try ThinVolume(
            of: clb_makedev(253, 7), mapper: DeviceMapper(directory: scratch.path),
            sys: scratch.file("sys"))
    }

    @Test func `a volume above a pool is an error if its table cannot be read`() throws {
        let error = #expect(throws: IOError.self) { try volume(on: ["vg0-pool-tpool"]) }
        #expect(error?.reason.contains("takes root") == true)
        #expect(try volume(on: ["vg0-other"]) == nil)
        #expect(try volume(on: []) == nil)
        // The pool's own device, and a pool of another program.
        #expect(try volume(uuid: Self.uuid + "-pool", on: ["vg0-pool-tpool"]) == nil)
        #expect(try volume(uuid: "docker", on: ["vg0-pool-tpool"]) == nil)
    }

    private func data(size: Int) throws(IOError) -> ChangeMap? {
        try ThinVolume(name: "vg--0-thin", id: 4, pool: tools.pool, mapper: tools.mapper)
            .data(size: size, snapshots: MetadataSnapshots()) { false }
    }

    private func putDump() {
        tools.put(
            "dump",
            """
            <superblock data_block_size="128">
            <device dev_id="4" mapped_blocks="3" creation_time="2">
            <range_mapping origin_begin="1" data_begin="9" length="2" time="1"/>
            <single_mapping origin_block="5" data_block="0" time="1"/></device></superblock>
            """)
    }

    @Test func `the map is read from the pool's metadata, and ends with the volume`() throws {
        putDump()
        let map = try #require(try data(size: 5 << 16 | 512))
        #expect(
            map.ranges == [
                ByteRange(1 << 16, to: 3 << 16), ByteRange(offset: 5 << 16, length: 512),
            ])
        #expect(tools.text("dumped") == "-m --dev-id 4 \(tools.scratch.path)/vg--0-pool_tmeta")
        #expect(tools.messages == ThinPoolTests.both && tools.text("held") == "-")
    }

    @Test func `a volume that is mapped completely needs no metadata snapshot`() throws {
        putDump()
        tools.put("status", "0 4096 thin 4096 4095")
        #expect(try data(size: 2 << 20) == nil)
        #expect(tools.messages == [])
    }

    @Test func `there is no map if the metadata cannot be trusted or read`() {
        func reason() -> String {
            let error = #expect(throws: IOError.self) { try data(size: 1 << 20) }
            return error?.reason ?? ""
        }
        // thin_dump fails.
        #expect(reason().contains("thin_dump"))
        #expect(tools.messages == ThinPoolTests.both && tools.text("held") == "-")
        putDump()
        for (mode, text) in [
            ("ro", "not writable"), ("rw discard_passdown needs_check", "needs to be checked"),
        ] {
            tools.put("mode", mode)
            #expect(reason().contains(text))
        }
        tools.put("mode", "rw")
        tools.put("held", "55")
        #expect(reason().contains("another program holds its metadata snapshot"))
        #expect(tools.messages == ThinPoolTests.both && tools.text("held") == "55")
    }
}
