// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import Digests
internal import WireProtocol
internal import Zstandard

private let deviceSizes = [1 << 20, 1_000_001, 1 << 60, Int.max]

/// Bits 0 and 1 choose the block, 2 and 3 the region, 4 and 5 the digest.
private func layout(_ choice: UInt8) -> (layout: BlockLayout, digestSize: Int) {
    let block = chosen(choice, 0, of: [512, 1536, 4096, 65536])
    let factor = chosen(choice, 2, of: [1, 2, 16, 128])
    let layout = BlockLayout(block: block, region: block * factor)
    return (layout, chosen(choice, 4, of: [16, 32, 64, 1]))
}

/// Bits 6 and 7 choose the device's size.
func fuzzCompareRequest(_ bytes: UnsafeRawBufferPointer, _ choice: UInt8) {
    let (layout, digestSize) = layout(choice)
    let size = chosen(choice, 6, of: deviceSizes)
    let parsed = try? CompareRequest(bytes, layout: layout, digestSize: digestSize, size: size)
    guard let request = parsed else { return }
    let again: [UInt8]
    switch request {
    case .map(let range):
        require(!range.isEmpty && range.end <= size, "a map within the device")
        again = written(bytes.count) { CompareRequest.writeMap(of: range, to: $0) }
    case .compare(let window, let digests):
        let regions = layout.regions(of: window)
        require(!regions.isEmpty, "something to compare")
        var end = 0
        for region in regions {
            require(!region.isEmpty && region.end <= size, "a region within the device")
            require(region.offset >= end, "ascending regions")
            require(region.offset % layout.region == 0, "whole regions")
            end = region.end
        }
        for region in regions.dropLast() {
            require(region.length == layout.region, "none cut off but the last one")
        }
        let length = regions.reduce(0) { $0 + $1.length }
        require(length <= Limits.window, "a window within the limit")
        require(digests.count == regions.count * digestSize, "one a region")
        again = written(bytes.count) { memory in
            CompareRequest.writeHeader(window, to: memory)
            let start = CompareRequest.headerSize(ranges: window.count)
            UnsafeMutableRawBufferPointer(rebasing: memory[start...]).copyMemory(from: digests)
        }
    }
    require(again.elementsEqual(bytes), "the same bytes when it is written again")
}

/// Three more bytes are the window's length.
func fuzzCompareAnswer(_ bytes: UnsafeRawBufferPointer, _ choice: UInt8) {
    guard bytes.count >= 3 else { return }
    let (layout, digestSize) = layout(choice)
    let length = 1 + Int(bytes[0]) + Int(bytes[1]) << 8 + Int(bytes[2]) << 16
    let range = ByteRange(offset: layout.region, length: length)
    guard (try? layout.check([range], size: .max)) != nil else { return }
    let body = UnsafeRawBufferPointer(rebasing: bytes[3...])
    let regions = layout.regions(of: [range])
    let parsed = try? CompareAnswer.read(
        body, regions: regions, layout: layout, digestSize: digestSize)
    guard let found = parsed else { return }
    var again = written(CompareAnswer.headerSize) {
        CompareAnswer.writeHeader(count: found.count, to: $0)
    }
    for difference in found {
        require(regions.indices.contains(difference.index), "a region of the window")
        let blocks = layout.blocks(in: regions[difference.index])
        let marks = (0..<blocks).map { difference.isZero(block: $0) }
        for block in marks.indices where marks[block] {
            let digest = difference.digests[block * digestSize..<(block + 1) * digestSize]
            require(digest.allSatisfy { $0 == 0 }, "a digest of zeros for a zero block")
        }
        let size = CompareAnswer.entrySize(blocks: blocks, digestSize: digestSize)
        again += written(size) { memory in
            marks.withUnsafeBufferPointer { marks in
                CompareAnswer.writeEntry(
                    index: difference.index, zeroBlocks: marks, digests: difference.digests,
                    to: memory)
            }
        }
    }
    require(again.elementsEqual(body), "the same bytes when it is written again")
}

/// Bits 0 and 1 choose the range that was asked about.
func fuzzMap(_ bytes: UnsafeRawBufferPointer, _ choice: UInt8) {
    let range = chosen(
        choice, 0,
        of: [
            ByteRange(offset: 0, length: 1 << 20), ByteRange(offset: 4096, length: 1 << 40),
            ByteRange(offset: 0, length: Int.max), ByteRange(offset: Int.max - 1, length: 1),
        ])
    guard let map = try? DataMap(bytes, range: range) else { return }
    require(map.end > range.offset && map.end <= range.end, "a map of what was asked about")
    require(map.runs.count <= Limits.runs, "as many runs as there may be")
    require(map.runs.allSatisfy { !$0.isEmpty && $0.end <= map.end }, "runs before its end")
    require(map.encoded.elementsEqual(bytes), "the same bytes when it is written again")
}

/// Bit 0 makes a packed payload of bytes that are none.
func fuzzPacked(_ bytes: UnsafeRawBufferPointer, _ choice: UInt8) {
    guard let context = ZstdContext() else { fatalError("no libzstd: \(Zstd.fault ?? "")") }
    guard choice & 1 == 0 else { return checkPacking(of: bytes, context) }
    guard let frame = try? PackedFrame(bytes) else { return }
    require(frame.count <= Limits.body, "as many bytes as there may be")
    if frame.coding == .plain {
        require(frame.content.count == frame.count, "as many bytes as announced")
        return
    }
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: frame.count, alignment: 8)
    defer { memory.deallocate() }
    guard let content = try? frame.unpacked(into: memory, context) else { return }
    require(content.count == frame.count, "as many bytes as announced")
    checkPacking(of: content, context)
}

private func checkPacking(of bytes: UnsafeRawBufferPointer, _ context: ZstdContext) {
    guard bytes.count <= Limits.body else { return }
    let room = 2 * bytes.count + 1024
    let memory = UnsafeMutableRawBufferPointer.allocate(
        byteCount: room + PackedFrame.footerSize, alignment: 8)
    defer { memory.deallocate() }
    let whole = UnsafeMutableRawBufferPointer(rebasing: memory[..<room])
    guard let length = context.compress(bytes, into: whole, level: Zstd.fastLevel) else {
        fatalError("broken promise: twice the room is enough")
    }
    let end = length + PackedFrame.footerSize
    PackedFrame.writeFooter(
        count: bytes.count, .zstd,
        to: UnsafeMutableRawBufferPointer(rebasing: memory[length..<end]))
    let frame = try? PackedFrame(UnsafeRawBufferPointer(rebasing: memory[..<end]))
    let again = UnsafeMutableRawBufferPointer.allocate(
        byteCount: max(1, bytes.count), alignment: 8)
    defer { again.deallocate() }
    let content = frame.flatMap { try? $0.unpacked(into: again, context) }
    require(content?.elementsEqual(bytes) == true, "the same bytes after unpacking")
}

/// Bits 0 and 1 choose the unit, 6 and 7 the device's size.
func fuzzReadRequest(_ bytes: UnsafeRawBufferPointer, _ choice: UInt8) {
    let unit = chosen(choice, 0, of: [1, 512, 4096, 1536])
    let size = chosen(choice, 6, of: deviceSizes)
    guard let ranges = try? ExtentFrame.readRequest(bytes, size: size, unit: unit) else { return }
    let extents = ranges.map { Extent($0, .data) }
    check(extents, size: size, unit: unit)
    let again = written(bytes.count) { ExtentFrame.writeTable(extents, to: $0) }
    require(again.elementsEqual(bytes), "the same bytes when it is written again")
}

/// Bits 0 and 1 choose the unit, 6 and 7 the device's size.
func fuzzPayload(_ bytes: UnsafeRawBufferPointer, _ choice: UInt8) {
    let unit = chosen(choice, 0, of: [1, 512, 4096, 1536])
    let size = chosen(choice, 6, of: deviceSizes)
    guard let payload = try? ExtentFrame.readPayload(bytes, size: size, unit: unit) else { return }
    let extents = payload.extents
    check(extents, size: size, unit: unit)
    let data = extents.reduce(0) { $0 + ($1.kind == .data ? $1.range.length : 0) }
    require(payload.data.count == data, "as much data as the table says")
    let table = written(ExtentFrame.tableSize(count: extents.count)) {
        ExtentFrame.writeTable(extents, to: $0)
    }
    require((payload.data + table).elementsEqual(bytes), "the same bytes when written again")
}

private func check(_ extents: [Extent], size: Int, unit: Int) {
    require((1...Limits.extents).contains(extents.count), "as many extents as there may be")
    var position = 0
    var data = 0
    for extent in extents {
        require(extent.range.offset >= position, "ascending, without overlap")
        require(extent.range.offset % unit == 0, "aligned")
        require(!extent.range.isEmpty && extent.range.end <= size, "within the device")
        position = extent.range.end
        if extent.kind == .data { data += extent.range.length }
    }
    require(data <= Limits.payload, "as much data as there may be")
}

/// Bits 0 and 1 choose the method; the rest is the bit that is flipped.
func fuzzSealed(_ bytes: UnsafeRawBufferPointer, _ choice: UInt8) {
    let name = chosen(choice, 0, of: ["poly1305", "sha256", "gmac", "sha1"])
    guard let method = try? DigestMethod(named: name),
        let key = try? DigestKey((0..<UInt8(DigestKey.byteCount)).map { $0 &* 7 &+ 1 }),
        var hasher = try? BlockHasher(method, key: key)
    else { fatalError("no hasher") }
    if let content = try? SealedFrame.open(bytes, &hasher) {
        require(content.count == bytes.count - method.byteCount, "the content before the digest")
        require(sealed(content, &hasher).elementsEqual(bytes), "the same digest again")
    }
    var frame = sealed(bytes, &hasher)
    let isRight = frame.withUnsafeBytes { frame in
        (try? SealedFrame.open(frame, &hasher))?.elementsEqual(bytes) == true
    }
    require(isRight, "a frame that was sealed can be opened")
    let bit = Int(choice >> 2) * 131 % (8 * frame.count)
    frame[bit / 8] ^= 1 << (bit % 8)
    let isWrong = frame.withUnsafeBytes { frame in (try? SealedFrame.open(frame, &hasher)) == nil }
    require(isWrong, "a frame with a bit flipped cannot be opened")
}

private func sealed(_ content: UnsafeRawBufferPointer, _ hasher: inout BlockHasher) -> [UInt8] {
    let memory = UnsafeMutableRawBufferPointer.allocate(
        byteCount: content.count + hasher.method.byteCount, alignment: 8)
    defer { memory.deallocate() }
    memory.copyMemory(from: content)
    guard let count = try? SealedFrame.seal(memory, count: content.count, &hasher) else {
        fatalError("cannot seal")
    }
    return Array(memory[..<count])
}
