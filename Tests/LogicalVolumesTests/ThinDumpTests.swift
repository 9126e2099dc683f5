// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import LinuxIO
import Testing

@testable import LogicalVolumes

/// Dumps as thin_dump of thin-provisioning-tools 0.9 and 1.0 writes them; real ones are in the
/// scenarios of tools/lab.
@Suite struct ThinDumpTests {
    private func dump(
        _ mappings: String, blocks: Int, made: Int = 3, id: Int = 4
    ) throws(IOError) -> ThinDump {
        let text = """
            <superblock uuid="" time="5" transaction="8" flags="0" version="2" data_block_size="128" \
            nr_data_blocks="800">
              <device dev_id="4" mapped_blocks="\(blocks)" transaction="7" creation_time="\(made)" \
            snap_time="\(made)">
                \(mappings)
              </device>
            </superblock>
            """
        return try ThinDump(xml: Array(text.utf8), of: id)
    }

    private static let usual = """
        <range_mapping origin_begin="0" data_begin="7" length="10" time="1"/>
        <single_mapping origin_block="12" data_block="40" time="2"/>
        """

    @Test func `an unchanged snapshot has its mapped blocks, all older than itself`() throws {
        let dump = try dump(Self.usual, blocks: 11)
        #expect(dump.mapped == 11 << 16 && dump.made == 3 && dump.newest == 2)
        #expect(dump.isUnchanged(since: 11 << 16))
        #expect(try self.dump("", blocks: 0).isUnchanged(since: 0))
    }

    @Test func `the mapped ranges ascend, and adjacent ones are joined`() throws {
        let mappings = """
            <range_mapping origin_begin="2" data_begin="7" length="3" time="1"/>
            <single_mapping origin_block="5" data_block="40" time="2"/>
            <single_mapping origin_block="7" data_block="41" time="0"/>
            """
        let ranges = try dump(mappings, blocks: 5).ranges
        #expect(ranges == [ByteRange(2 << 16, to: 6 << 16), ByteRange(7 << 16, to: 8 << 16)])
        #expect(try dump("", blocks: 0).ranges == [])
    }

    @Test func `mappings that do not ascend, and blocks of no size, are an error`() {
        for second in [0, 4] {
            let mappings = """
                <range_mapping origin_begin="2" data_begin="7" length="3" time="1"/>
                <single_mapping origin_block="\(second)" data_block="40" time="2"/>
                """
            #expect(throws: IOError.self) { try dump(mappings, blocks: 4) }
        }
        let empty = #"<range_mapping origin_begin="2" data_begin="7" length="0" time="1"/>"#
        #expect(throws: IOError.self) { try dump(empty, blocks: 0) }
        for sectors in [0, 1, 127] {
            let text = """
                <superblock data_block_size="\(sectors)">
                <device dev_id="4" mapped_blocks="0" creation_time="1"></device></superblock>
                """
            #expect(throws: IOError.self) { try ThinDump(xml: Array(text.utf8), of: 4) }
        }
    }

    @Test func `discarded blocks are missing, and written blocks are as new as the snapshot`()
        throws
    {
        #expect(try !dump(Self.usual, blocks: 11).isUnchanged(since: 12 << 16))
        let written = Self.usual.replacing("time=\"2\"", with: "time=\"3\"")
        #expect(try !dump(written, blocks: 11).isUnchanged(since: 11 << 16))
        #expect(try !dump(Self.usual, blocks: 11, made: 2).isUnchanged(since: 11 << 16))
    }

    @Test func `more blocks than any device has are an error`() {
        let longest = 1 << 48 - 1
        let range =
            #"<range_mapping origin_begin="0" data_begin="7" length="\#(longest)" time="1"/>"#
        // 2^48 blocks of 64 KiB, and so many ranges that not even their blocks can be counted.
        for count in [1, 40_000] {
            #expect(throws: IOError.self) {
                try dump(String(repeating: range, count: count), blocks: longest)
            }
        }
    }

    @Test func `a dump that is malformed, cut off, or of another volume is an error`() {
        let bad = [
            (Self.usual, 10), (Self.usual + "<ref name=\"1\"/>", 11),
            ("<single_mapping origin_block=\"12\" data_block=\"40\"/>", 1),
            ("<range_mapping origin_begin=\"0\" data_begin=\"7\" time=\"1\"/>", 1),
        ]
        for (mappings, blocks) in bad {
            #expect(throws: IOError.self) { try dump(mappings, blocks: blocks) }
        }
        #expect(throws: IOError.self) { try dump(Self.usual, blocks: 11, id: 5) }
        for text in ["", "<superblock data_block_size=\"128\">", "<superblock/>"] {
            #expect(throws: IOError.self) { try ThinDump(xml: Array(text.utf8), of: 4) }
        }
    }

    @Test func `an error names thin_dump, not thin_delta`() {
        for text in ["", "words", "<superblock/>"] {
            let error = #expect(throws: IOError.self) {
                try ThinDump(xml: Array(text.utf8), of: 4)
            }
            #expect(error?.object == "thin_dump", "\(text)")
        }
    }
}
