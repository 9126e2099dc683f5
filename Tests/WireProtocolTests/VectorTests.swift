// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

import BlockDevices
import Digests
import Testing
import WireProtocol
import Zstandard

/// The examples of docs/protocol-vectors.txt, which were made without this code.
@Suite(.timeLimit(.minutes(60))) struct VectorTests {
    static func vectors(_ kind: String) -> [Vector] { Vector.all.filter { $0.kind == kind } }

    @Test func `the published vectors have every kind of frame, and no other`() {
        let kinds: Set = [
            "compare-request", "compare-answer", "map-request", "map-answer", "read-request",
            "payload", "packed-read-request", "packed-payload", "json",
        ]
        #expect(Set(Vector.all.map(\.kind)) == kinds)
        #expect(
            Set(Vector.all.compactMap { $0.fields["digest"] }) == ["gmac", "poly1305", "sha256"])
    }

    @Test(arguments: Vector.all.filter { !$0.frame.isEmpty && $0.kind != "packed-payload" })
    func `a frame is sealed by the digest of all before it`(vector: Vector) throws {
        var hasher = try vector.hasher()
        let content = try vector.content()
        #expect(content.count == vector.frame.count - hasher.method.byteCount)
        #expect(try sealed(content, &hasher) == vector.frame)
    }

    @Test(arguments: vectors("compare-request"))
    func `a compare request is the window's region digests`(vector: Vector) throws {
        let (layout, ranges, content) = try (vector.layout(), vector.ranges(), vector.content())
        let window = try compactBytes(vector.text("data"))
        var hasher = try vector.hasher()
        let size = hasher.method.byteCount
        let digests = try written(layout.regions(of: ranges).count * size) { memory in
            try window.withUnsafeBytes {
                try hasher.regionDigests(of: $0, regionSize: layout.region, into: memory)
            }
        }
        let header = written(CompareRequest.headerSize(ranges: ranges.count)) {
            CompareRequest.writeHeader(ranges, to: $0)
        }
        #expect(header + digests == content)
        try content.withUnsafeBytes { bytes in
            let request = try CompareRequest(
                bytes, layout: layout, digestSize: size, size: vector.number("size"))
            guard case .compare(let found, let theirs) = request else {
                Issue.record("not a compare request")
                return
            }
            #expect(found == ranges && theirs.elementsEqual(digests))
        }
    }

    @Test(arguments: vectors("compare-answer"))
    func `a compare answer is the block digests of regions`(vector: Vector) throws {
        let (layout, content) = try (vector.layout(), vector.content())
        let all = layout.regions(of: try vector.ranges())
        let window = try compactBytes(vector.text("data"))
        let different = try vector.text("regions").split(separator: " ").compactMap { Int($0) }
        var hasher = try vector.hasher()
        // All regions but the last one are whole.
        func bytes(of index: Int) -> [UInt8] {
            Array(window[(index * layout.region)...].prefix(all[index].length))
        }
        var expected = written(4) { CompareAnswer.writeHeader(count: different.count, to: $0) }
        for index in different { expected += try entry(index, bytes(of: index), layout, &hasher) }
        #expect(expected == content)
        try content.withUnsafeBytes { content in
            let found = try CompareAnswer.read(
                content, regions: all, layout: layout, digestSize: hasher.method.byteCount)
            #expect(found.map(\.index) == different)
            for difference in found {
                let region = bytes(of: difference.index)
                for (block, start) in stride(from: 0, to: region.count, by: layout.block)
                    .enumerated()
                {
                    let isZero = region[start...].prefix(layout.block).allSatisfy { $0 == 0 }
                    #expect(difference.isZero(block: block) == isZero)
                }
            }
        }
    }

    private func entry(
        _ index: Int, _ region: [UInt8], _ layout: BlockLayout, _ hasher: inout BlockHasher
    ) throws -> [UInt8] {
        let blocks = (region.count + layout.block - 1) / layout.block
        var zeros = [Bool](repeating: false, count: blocks)
        let digests = try written(blocks * hasher.method.byteCount) { memory in
            try zeros.withUnsafeMutableBufferPointer { zeros in
                try region.withUnsafeBytes {
                    try hasher.blockDigests(
                        of: $0, blockSize: layout.block, into: memory, zeroBlocks: zeros)
                }
            }
        }
        return encodedEntry(index, zeros, digests)
    }

    @Test(arguments: vectors("map-request"))
    func `a map request is a range`(vector: Vector) throws {
        let (range, content) = try (vector.range(), vector.content())
        #expect(written(24) { CompareRequest.writeMap(of: range, to: $0) } == content)
        try content.withUnsafeBytes { bytes in
            let request = try CompareRequest(
                bytes, layout: BlockLayout(), digestSize: 16, size: vector.number("size"))
            guard case .map(let found) = request else {
                Issue.record("not a map request")
                return
            }
            #expect(found == range)
        }
    }

    @Test(arguments: vectors("map-answer"))
    func `a map answer is runs of data`(vector: Vector) throws {
        let content = try vector.content()
        let runs = try vector.text("runs").split(separator: " ").filter { $0 != "none" }
            .map { try byteRange($0) }
        let map = DataMap(end: try vector.number("end"), runs: runs)
        #expect(map.encoded == content)
        let found = try content.withUnsafeBytes { try DataMap($0, range: vector.range()) }
        #expect(found == map)
    }

    @Test(arguments: vectors("read-request"))
    func `a read request is a table of extents`(vector: Vector) throws {
        let (extents, content) = try (extents(of: vector), vector.content())
        #expect(encodedTable(extents) == content)
        let found = try content.withUnsafeBytes {
            try ExtentFrame.readRequest(
                $0, size: vector.number("size"), unit: vector.number("unit"))
        }
        #expect(found == extents.map(\.range))
    }

    @Test(arguments: vectors("payload"))
    func `a payload is data and a table of extents`(vector: Vector) throws {
        let (extents, content) = try (extents(of: vector), vector.content())
        let data = Array(content.dropLast(ExtentFrame.tableSize(count: extents.count)))
        #expect(data + encodedTable(extents) == content)
        try content.withUnsafeBytes { bytes in
            let payload = try ExtentFrame.readPayload(
                bytes, size: vector.number("size"), unit: vector.number("unit"))
            #expect(payload.extents == extents && payload.data.elementsEqual(data))
        }
    }

    @Test(arguments: vectors("packed-read-request"))
    func `a packed read request names the coding that the answer may have`(vector: Vector) throws {
        let (extents, content) = try (extents(of: vector), vector.content())
        let coding = try coding(of: vector)
        let table = written(ExtentFrame.tableSize(count: extents.count)) {
            ExtentFrame.writeTable(extents, coding: coding, to: $0)
        }
        #expect(table == content)
        try content.withUnsafeBytes { bytes in
            let (size, unit) = try (vector.number("size"), vector.number("unit"))
            let found = try ExtentFrame.readRequest(
                bytes, size: size, unit: unit, codings: [.plain, .zstd])
            #expect(found.ranges == extents.map(\.range) && found.coding == coding)
            // A session that does not compress.
            #expect(
                rejection { try ExtentFrame.readRequest(bytes, size: size, unit: unit) } != nil)
        }
    }

    @Test(arguments: vectors("packed-payload"))
    func `a packed payload is a sealed payload, as it is or by zstd`(vector: Vector) throws {
        let (extents, coding) = try (extents(of: vector), coding(of: vector))
        var hasher = try vector.hasher()
        try vector.frame.withUnsafeBytes { bytes in
            let frame = try PackedFrame(bytes)
            #expect(frame.coding == coding)
            let memory = UnsafeMutableRawBufferPointer.allocate(
                byteCount: frame.count, alignment: 8)
            defer { memory.deallocate() }
            let context = try #require(ZstdContext())
            let sealed =
                try coding == .plain ? frame.content : frame.unpacked(into: memory, context)
            #expect(sealed.count == frame.count)
            let payload = try ExtentFrame.readPayload(
                SealedFrame.open(sealed, &hasher), size: vector.number("size"),
                unit: vector.number("unit"))
            #expect(payload.extents == extents)
            let footer = written(PackedFrame.footerSize) {
                PackedFrame.writeFooter(count: frame.count, coding, to: $0)
            }
            #expect(footer.elementsEqual(bytes.suffix(PackedFrame.footerSize)))
        }
    }

    private func coding(of vector: Vector) throws -> PackedFrame.Coding {
        try #require(PackedFrame.Coding(rawValue: UInt32(vector.number("coding"))))
    }

    private func extents(of vector: Vector) throws -> [Extent] {
        try vector.text("extents").split(separator: " ").map { word in
            let parts = word.split(separator: "@")
            return Extent(try byteRange(parts[1]), parts[0] == "zero" ? .zero : .data)
        }
    }

    private func byteRange(_ text: Substring) throws -> ByteRange {
        let numbers = text.split(separator: "+").compactMap { Int($0) }
        try #require(numbers.count == 2)
        return ByteRange(offset: numbers[0], length: numbers[1])
    }

    @Test(arguments: vectors("json"))
    func `JSON is the same after reading and writing`(vector: Vector) throws {
        let text = try vector.text("json")
        switch try vector.text("record") {
        case "session-request": try #expect(again(SessionRequest.self, text) == text)
        case "session-record": try #expect(again(SessionRecord.self, text) == text)
        case "commit-request": try #expect(again(CommitRequest.self, text) == text)
        case "content-record": try #expect(again(ContentRecord.self, text) == text)
        case "problem": try #expect(again(Problem.self, text) == text)
        case let other: Issue.record("record \(other) is unknown")
        }
    }

    private func again<Record: Codable>(_ type: Record.Type, _ text: String) throws -> String {
        String(decoding: WireJSON.encode(try decoded(type, text)), as: UTF8.self)
    }
}
