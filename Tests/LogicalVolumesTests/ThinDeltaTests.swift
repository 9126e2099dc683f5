// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import LinuxIO
import LogicalVolumes
import TestSupport
import Testing

/// Bytes of a data block in these tests.
private let block = 64 << 10

private func delta(_ xml: String) throws(IOError) -> ThinDelta {
    try ThinDelta(xml: Array(xml.utf8), from: 1, to: 2)
}

private func blocks(_ range: Range<Int>) -> ByteRange {
    ByteRange(range.lowerBound * block, to: range.upperBound * block)
}

/// A text with this within `<diff>`.
private func document(_ entries: String) -> String {
    """
    <superblock uuid="" time="1" transaction="3" data_block_size="128" nr_data_blocks="0">
      <diff left="1" right="2">
    \(entries)
      </diff>
    </superblock>

    """
}

@Suite struct ThinDeltaTests {
    @Test func `blocks that are not the same have changed, also blocks of the old volume alone`()
        throws
    {
        let delta = try delta(
            document(
                """
                <different begin="0" length="2"/>
                <same begin="2" length="6"/>
                <right_only begin="8" length="1"/>
                <left_only begin="9" length="3"/>
                <same begin="12" length="1"/>
                <different begin="40" length="1"/>
                """))
        #expect(delta.blockSize == block)
        #expect(delta.changed == [blocks(0..<2), blocks(8..<12), blocks(40..<41)])
        let map = delta.map(
            size: 40 * block + 4096, oldSize: 20 * block + 4096, isOldAsMade: true)
        #expect(map.ranges == [blocks(0..<2), blocks(8..<12), ByteRange(20 * block, to: map.size)])
    }

    @Test func `blocks that neither volume has may have changed if the old one was written to`()
        throws
    {
        let delta = try delta(
            document(
                """
                <same begin="9" length="3"/>
                <different begin="1" length="1"/>
                <same begin="2" length="2"/>
                <same begin="5" length="1"/>
                """))
        #expect(delta.allocated == [blocks(9..<12), blocks(1..<4), blocks(5..<6)])
        let size = 14 * block
        #expect(delta.map(size: size, oldSize: size, isOldAsMade: true).ranges == [blocks(1..<2)])
        #expect(
            delta.map(size: size, oldSize: size, isOldAsMade: false).ranges
                == [blocks(0..<2), blocks(4..<5), blocks(6..<9), blocks(12..<14)])
        #expect(
            delta.map(size: 10 * block, oldSize: size, isOldAsMade: false).ranges
                == [blocks(0..<2), blocks(4..<5), blocks(6..<9)])
    }

    @Test(arguments: [
        "<superblock data_block_size='128'><diff/></superblock>",
        "<?xml version=\"1.0\"?><!-- a -- b --><superblock data_block_size=\"128\"><diff></diff></superblock>",
        "<superblock data_block_size = \"128\" ><diff ></diff ></superblock >\n<!-- end -->\n",
        document("<same length=\"7\" flavour=\"&lt;&#x41;&amp;&quot;\" begin=\"0\"></same>"),
        document("<same begin='1' length='1'>\n</same>"),
    ])
    func `volumes without a difference have an empty map`(xml: String) throws {
        let delta = try delta(xml)
        #expect(delta.blockSize == block && delta.changed.isEmpty)
        #expect(delta.map(size: block, oldSize: block, isOldAsMade: true).ranges.isEmpty)
    }

    @Test
    func `attributes come in any order, and unknown attributes and outer elements do not matter`()
        throws
    {
        let delta = try delta(
            """
            <superblock nr_data_blocks="0" shade="blue" data_block_size="256">
              <summary><different begin="0" length="100"/></summary>
              <diff right="2" left="1">
                <different colour="red" length="&#51;" begin="&#x35;"/>
              </diff>
              <later/>
            </superblock>
            """)
        #expect(delta.blockSize == 2 * block)
        #expect(delta.changed == [ByteRange(offset: 10 * block, length: 6 * block)])
    }

    @Test(arguments: [
        ("", "no <superblock>"),
        ("<superblock data_block_size=\"128\"/>", "no <diff>"),
        ("<superblock/>", "without data_block_size"),
        ("<diff/>", "beside <superblock>"),
        ("<superblock data_block_size=\"0\"><diff/></superblock>", "blocks of 0 sectors"),
        ("<superblock data_block_size=\"100\"><diff/></superblock>", "blocks of 100 sectors"),
        ("<superblock data_block_size=\"64k\"><diff/></superblock>", "64k, which is no number"),
        ("<superblock data_block_size=\"9223372036854775680\"><diff/></superblock>", "sectors"),
        ("<superblock data_block_size=\"128\"><diff/><diff/></superblock>", "a second <diff>"),
        ("<superblock data_block_size=\"128\"><diff left=\"7\"/></superblock>", "volume 7, not 1"),
        ("<superblock data_block_size=\"128\"><diff right=\"1\"/></superblock>", "volume 1, not 2"),
        ("<superblock data_block_size=\"128\"><diff/></superblock><superblock/>", "beside"),
        ("<superblock data_block_size=\"128\"></diff></superblock>", "closes what is not open"),
        ("<superblock data_block_size=\"128\"><diff></superblock></diff>", "closes what is not"),
        (
            "<superblock data_block_size=\"128\" data_block_size=\"256\"><diff/></superblock>",
            "twice"
        ),
        (
            "<!DOCTYPE superblock><superblock data_block_size=\"128\"><diff/></superblock>",
            "no name"
        ),
        ("error: no such volume\n", "text between tags"),
        (document("<moved begin=\"0\" length=\"1\"/>"), "<moved> is not known within <diff>"),
        (document("<different><range begin=\"0\" length=\"1\"/></different>"), "without begin"),
        (document("<same begin=\"0\" length=\"1\"><x/></same>"), "not known within <same>"),
        (document("<same begin=\"0\"/>"), "<same> without length"),
        (document("<different begin=\"-1\" length=\"2\"/>"), "begin is -1"),
        (document("<different begin=\"+1\" length=\"2\"/>"), "begin is +1"),
        (document("<different begin=\"\" length=\"2\"/>"), "begin is , "),
        (
            document("<different begin=\"1\" length=\"9223372036854775807\"/>"),
            "beyond every device"
        ),
        (document("<different begin=\"140737488355327\" length=\"1\"/>"), "beyond every device"),
        (document("<same begin=\"1\" length=\"18446744073709551615\"/>"), "no number here"),
        (document("<different begin=\"&one;\" length=\"1\"/>"), "a reference that is not known"),
        (document("<different begin=\"&#xD800;\" length=\"1\"/>"), "a reference that is not known"),
        (document("<different begin=1 length=\"1\"/>"), "without quotes"),
        (document("<different begin=\"1\"length=\"1\"/>"), "no blank"),
        (document("words"), "text between tags"),
    ])
    func `a text that is not understood is no map`(xml: String, reason: String) {
        let error = #expect(throws: IOError.self) { try delta(xml) }
        #expect(error?.reason.contains(reason) == true, "\(error?.reason ?? "")")
        #expect(error?.reason.contains("\n") == false && error?.kind != .cancelled)
        #expect(error?.object == "thin_delta")
    }

    @Test func `a text that is cut off anywhere is no map`() throws {
        let text = document(
            "<?note?><!-- x --><different begin='0' length='2'></different>\n<same begin='5' length='1'/>"
        )
        let whole = Array(text.utf8)
        let end = text.dropLast(2).utf8.count + 1
        #expect(try ThinDelta(xml: Array(whole[..<end]), from: 1, to: 2).changed == [blocks(0..<2)])
        for count in 0..<end {
            #expect(throws: IOError.self, "after \(count) bytes") {
                try ThinDelta(xml: Array(whole[..<count]), from: 1, to: 2)
            }
        }
    }

    @Test(arguments: UInt64(0)..<50)
    func `the map is what the entries say, block by block`(seed: UInt64) throws {
        var random = SeededGenerator(seed: seed)
        var isChanged: [Bool] = []
        var entries = ""
        while isChanged.count < 200 {
            let length = Int.random(in: 1...9, using: &random)
            let name =
                ["same", "different", "left_only", "right_only", ""].randomElement(
                    using: &random) ?? ""
            if name != "" {
                entries += "<\(name) begin=\"\(isChanged.count)\" length=\"\(length)\"/>\n"
            }
            isChanged += Array(repeating: name != "" && name != "same", count: length)
        }
        let size = Int.random(in: 0...210 * block, using: &random)
        let oldSize = Int.random(in: size...size + 4096, using: &random)
        let map = try delta(document(entries)).map(
            size: size, oldSize: oldSize, isOldAsMade: true)
        for index in 0..<210 {
            let range = blocks(index..<index + 1)
            let expected = index < isChanged.count && isChanged[index] && range.offset < size
            #expect(map.overlaps(range) == expected)
            #expect(!expected || map.next(from: range.offset)?.offset == range.offset)
        }
        #expect((map.ranges.last?.end ?? 0) <= size)
    }
}
