// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import Digests
internal import LinuxIO
internal import SyncEngine
internal import WireProtocol

/// A remote device whose server is in this thread: all frames of a session, and no connection.
final class FramedDevice: RemoteDevice {
    fileprivate let base: RepeatingDevice
    let digestMethod = DigestMethod.gmac
    let digestKey: DigestKey?

    init(_ base: RepeatingDevice) {
        self.base = base
        digestKey = result { () throws(IOError) in
            try DigestKey((0..<UInt8(DigestKey.byteCount)).map { $0 &* 7 &+ 1 })
        }
    }

    var name: String { base.name }
    var geometry: Geometry { base.geometry }
    var requestLimit: Int { Limits.payload }
    var extentLimit: Int { Limits.extents }
    func openChannel() -> any RemoteChannel { FramedChannel(self) }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: Int) throws(IOError) {
        try base.read(into: buffer, at: offset)
    }
    func write(_ buffer: UnsafeRawBufferPointer, at offset: Int) throws(IOError) {}
    func write(
        _ extents: [Extent], of bytes: UnsafeRawBufferPointer?, at offset: Int
    ) throws(IOError) {}
    func zero(_ range: ByteRange) throws(IOError) {}
    func flush() throws(IOError) {}
    func checkIdentity() throws(IOError) {}
    func hasForeignWrites() -> Bool { false }
    func hadOtherWriters() -> Bool { false }
    func changeCounter() -> ChangeCounter? { nil }
    func persistentChangeCounter() -> ChangeCounter? { nil }
    var reasonForNoCounter: String? { nil }
}

/// Writes each request as the client does, reads and answers it as the server does, and reads the
/// answer.
private final class FramedChannel: RemoteChannel {
    private let device: FramedDevice
    private let layout = BlockLayout()
    private let method: DigestMethod
    private let request = AlignedBuffer(count: Limits.body)
    private let payload = AlignedBuffer(count: Limits.body)
    /// Stays while the data is fetched.
    private let comparison = AlignedBuffer(count: Limits.body)
    private let memory = AlignedBuffer(count: BlockLayout().window)

    init(_ device: FramedDevice) {
        self.device = device
        method = device.digestMethod
    }

    func compare(
        _ window: [ByteRange], digests: UnsafeRawBufferPointer
    ) throws(IOError) -> [RegionDifference] {
        let header = CompareRequest.headerSize(ranges: window.count)
        CompareRequest.writeHeader(window, to: request.bytes)
        slice(request.bytes, header, header + digests.count).copyMemory(from: digests)
        let content = try sent(request.bytes, header + digests.count)
        let parsed = result { () throws(WireError) in
            try CompareRequest(
                content, layout: layout, digestSize: method.byteCount, size: device.geometry.size)
        }
        guard case .compare(let ranges, let theirs) = parsed else { fatalError("no comparison") }
        let answered = try sent(comparison.bytes, try differences(of: ranges, from: theirs))
        let regions = layout.regions(of: window)
        return result { () throws(WireError) in
            try CompareAnswer.read(
                answered, regions: regions, layout: layout, digestSize: method.byteCount)
        }
    }

    /// Writes the answer, and returns its length.
    private func differences(
        of window: [ByteRange], from theirs: UnsafeRawBufferPointer
    ) throws(IOError) -> Int {
        var hasher = try WindowHasher(
            layout, window: layout.window, method, key: device.digestKey)
        let size = hasher.digestSize
        var (first, count, end) = (0, 0, CompareAnswer.headerSize)
        for piece in window.flatMap({ $0.pieces(of: layout.window) }) {
            try hasher.hashRegions(
                of: piece, on: device.base, isHole: false, memory: memory.bytes)
            let regions = layout.regions(of: [piece])
            for (index, region) in regions.enumerated() {
                let ours = hasher.regionDigests[index * size..<(index + 1) * size]
                let place = (first + index) * size
                if ours.elementsEqual(theirs[place..<place + size]) { continue }
                let start = region.offset - piece.offset
                try hasher.hashBlocks(
                    of: UnsafeRawBufferPointer(slice(memory.bytes, start, start + region.length)))
                let blocks = layout.blocks(in: region)
                CompareAnswer.writeEntry(
                    index: first + index,
                    zeroBlocks: UnsafeBufferPointer(rebasing: hasher.zeroBlocks[..<blocks]),
                    digests: UnsafeRawBufferPointer(
                        rebasing: hasher.blockDigests[..<(blocks * size)]),
                    to: slice(comparison.bytes, end, comparison.count))
                end += CompareAnswer.entrySize(blocks: blocks, digestSize: size)
                count += 1
            }
            first += regions.count
        }
        CompareAnswer.writeHeader(count: count, to: comparison.bytes)
        return end
    }

    func write(
        _ extents: ArraySlice<Extent>, _ parts: [UnsafeRawBufferPointer]
    ) throws(IOError) {
        var end = 0
        for part in parts {
            slice(request.bytes, end, end + part.count).copyMemory(from: part)
            end += part.count
        }
        let content = try sent(request.bytes, withTable(extents, at: end, request.bytes))
        for transfer in parsed(content).transfers {
            try device.base.write(UnsafeRawBufferPointer(transfer.memory), at: transfer.offset)
        }
    }

    func read(_ ranges: [ByteRange]) throws(IOError) -> ExtentData {
        let extents = ranges.map { Extent($0, .data) }
        let content = try sent(request.bytes, withTable(extents, at: 0, request.bytes))
        let asked = result { () throws(WireError) in
            try ExtentFrame.readRequest(content, size: device.geometry.size, unit: 4096)
        }
        var end = 0
        for range in asked {
            try device.base.read(
                into: slice(payload.bytes, end, end + range.length), at: range.offset)
            end += range.length
        }
        return parsed(try sent(payload.bytes, withTable(extents, at: end, payload.bytes)))
    }

    /// Appends the table to data, and returns the length of both.
    private func withTable(
        _ extents: some Collection<Extent>, at end: Int, _ frame: UnsafeMutableRawBufferPointer
    ) -> Int {
        ExtentFrame.writeTable(extents, to: slice(frame, end, frame.count))
        return end + ExtentFrame.tableSize(count: extents.count)
    }

    private func parsed(_ content: UnsafeRawBufferPointer) -> ExtentData {
        result { () throws(WireError) in
            try ExtentFrame.readPayload(content, size: device.geometry.size, unit: 4096)
        }
    }

    /// Seals a frame on one side, and opens it on the other.
    private func sent(
        _ frame: UnsafeMutableRawBufferPointer, _ count: Int
    ) throws(IOError) -> UnsafeRawBufferPointer {
        var hasher = try BlockHasher(method, key: device.digestKey)
        let length = try SealedFrame.seal(frame, count: count, &hasher)
        var other = try BlockHasher(method, key: device.digestKey)
        return try SealedFrame.open(UnsafeRawBufferPointer(slice(frame, 0, length)), &other)
    }
}

/// The result of a call that cannot fail on this input.
private func result<Value, Failure: Error>(_ body: () throws(Failure) -> Value) -> Value {
    do { return try body() } catch { fatalError("\(error)") }
}
