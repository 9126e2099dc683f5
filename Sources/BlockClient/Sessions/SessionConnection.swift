// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import Digests
internal import LinuxIO
internal import SyncEngine
internal import WireProtocol

/// One thread's access to a remote device: frames, their digests, and retries of corrupted frames.
///
/// It is safe to send, because only one thread uses it at a time: a worker has its own, and the
/// device lends an idle one to one caller.
final class SessionConnection: RemoteChannel, @unchecked Sendable {
    // Unowned, because the device keeps idle channels; a strong reference would be a cycle. The
    // device outlives its channels, because whoever uses one holds the device too.
    private unowned let device: RemoteBlockDevice
    private let method: DigestMethod
    private let key: DigestKey?
    /// Buffer for outgoing frames; it grows on demand.
    private var frame = AlignedBuffer(count: 64 << 10)
    private let comparison = ResponseBody(limit: Limits.answer)
    private let payload = ResponseBody(limit: Limits.body)
    /// The last data that was read, if the server had split it inside a block.
    private var assembled = AlignedBuffer(count: 4096)
    /// Set if the session's payloads are packed.
    private let packer: PayloadPacker?
    /// The data of the last payload that was read; its memory is that of the answer.
    private var lastRead: UnsafeRawBufferPointer?

    /// Number of attempts at a request whose frame or answer arrives corrupted.
    private static let attempts = 3

    init(_ device: RemoteBlockDevice) {
        self.device = device
        method = device.digestMethod
        key = device.digestKey
        packer = device.packing.map { PayloadPacker($0) }
    }

    func compare(
        _ window: [ByteRange], digests: UnsafeRawBufferPointer
    ) throws(IOError) -> [RegionDifference] {
        guard let first = window.first, let last = window.last else {
            preconditionFailure("nothing to compare")
        }
        let header = CompareRequest.headerSize(ranges: window.count)
        let content = header + digests.count
        reserve(content)
        CompareRequest.writeHeader(window, to: frame.bytes)
        slice(frame.bytes, header, content).copyMemory(from: digests)
        let layout = BlockLayout(block: device.record.block)
        let (regions, digestSize) = (layout.regions(of: window), method.byteCount)
        return try exchange(
            content, "compare at \(ByteRange(first.offset, to: last.end))", into: comparison,
            { .compare(session: $0) }
        ) { answer throws(WireError) in
            try CompareAnswer.read(
                answer, regions: regions, layout: layout, digestSize: digestSize)
        }
    }

    func map(_ range: ByteRange) throws(IOError) -> DataMap {
        CompareRequest.writeMap(of: range, to: frame.bytes)
        lastRead = nil
        return try exchange(
            CompareRequest.headerSize(), "find data at \(range.offset)", into: payload,
            { .compare(session: $0) }
        ) { answer throws(WireError) in try DataMap(answer, range: range) }
    }

    func write(
        _ extents: ArraySlice<Extent>, _ parts: [UnsafeRawBufferPointer]
    ) throws(IOError) {
        guard let first = extents.first, let last = extents.last else { return }
        let table = ExtentFrame.tableSize(count: extents.count)
        reserve(table)
        ExtentFrame.writeTable(extents, to: frame.bytes)
        let range = ByteRange(first.range.offset, to: last.range.end)
        defer { device.noteWrite(to: range.end) }
        let size = method.byteCount
        let digest = UnsafeMutableRawBufferPointer(rebasing: frame.bytes[table..<table + size])
        var all = parts
        all.append(UnsafeRawBufferPointer(rebasing: frame.bytes[..<table]))
        var hasher = try BlockHasher(method, key: key)
        try hasher.digest(of: all, into: digest)
        all.append(UnsafeRawBufferPointer(digest))
        lastRead = nil
        let body = packer?.pack(all) ?? all
        do throws(IOError) {
            try attempt(
                body, "write at \(range)", .nothing, into: payload, { .write(session: $0) }
            ) { _ in }
        } catch {
            packer?.abandon()
            throw error
        }
        packer?.finish(count: all.byteCount, onWire: body.byteCount)
    }

    func read(_ ranges: [ByteRange]) throws(IOError) -> ExtentData {
        guard let first = ranges.first, let last = ranges.last else {
            preconditionFailure("nothing to read")
        }
        let content = ExtentFrame.tableSize(count: ranges.count)
        reserve(content)
        let range = ByteRange(first.offset, to: last.end)
        let size = device.geometry.size
        let coding = packer?.beginReading(last: lastRead) ?? .plain
        lastRead = nil
        ExtentFrame.writeTable(ranges.map { Extent($0, .data) }, coding: coding, to: frame.bytes)
        let found: ExtentData
        do throws(IOError) {
            found = try exchange(
                content, "read at \(range)", into: payload, by: packer, { .read(session: $0) }
            ) { answer throws(WireError) in
                let data = try ExtentFrame.readPayload(answer, size: size, unit: 1)
                guard covers(data.extents, ranges) else {
                    throw WireError("it does not match the request")
                }
                return data
            }
        } catch {
            packer?.abandon()
            throw error
        }
        packer?.finish(count: found.data.count, onWire: payload.bytes.count)
        lastRead = found.data
        return isCutByBlocks(found, ranges) ? found : assemble(found, ranges)
    }

    /// Returns whether an answer splits ranges only at block boundaries.
    private func isCutByBlocks(_ payload: ExtentData, _ ranges: [ByteRange]) -> Bool {
        let block = device.record.block
        let ends = Set(ranges.map(\.end))
        return payload.extents.allSatisfy {
            $0.range.end % block == 0 || ends.contains($0.range.end)
        }
    }

    /// Joins the extents of an answer into one extent for each range.
    ///
    /// The protocol lets a server split ranges anywhere. Direct I/O on the local target needs whole
    /// blocks.
    private func assemble(_ payload: ExtentData, _ ranges: [ByteRange]) -> ExtentData {
        let count = ranges.reduce(0) { $0 + $1.length }
        if assembled.count < count { assembled = AlignedBuffer(count: count) }
        payload.copy(to: assembled.bytes)
        return ExtentData(
            extents: ranges.map { Extent($0, .data) },
            data: UnsafeRawBufferPointer(rebasing: assembled.bytes[..<count]))
    }

    private func reserve(_ content: Int) {
        guard content + method.byteCount > frame.count else { return }
        frame = AlignedBuffer(count: max(2 * frame.count, content + method.byteCount))
    }

    /// Sends a frame, and parses the frame of the answer.
    ///
    /// - Parameter packer: unpacks the answer; `nil` for one that is not packed.
    private func exchange<Result>(
        _ content: Int, _ operation: String, into body: ResponseBody,
        by packer: PayloadPacker? = nil, _ route: (String) -> Route,
        _ understand: (UnsafeRawBufferPointer) throws(WireError) -> Result
    ) throws(IOError) -> Result {
        let (method, key, name) = (method, key, device.name)
        var hasher = try BlockHasher(method, key: key)
        let length = try SealedFrame.seal(frame.bytes, count: content, &hasher)
        let bytes = UnsafeRawBufferPointer(rebasing: frame.bytes[..<length])
        return try attempt([bytes], operation, .frame, into: body, route) {
            bytes throws(IOError) in
            var hasher = try BlockHasher(method, key: key)
            let sealed = try packer?.unpacked(bytes)
            let opened = try SealedFrame.open(sealed ?? bytes, &hasher)
            do throws(WireError) { return try understand(opened) } catch {
                throw RemoteServer.invalid(error, name, operation)
            }
        }
    }

    /// Sends a request, and repeats it if the request or the answer was corrupted.
    private func attempt<Result>(
        _ parts: [UnsafeRawBufferPointer], _ operation: String, _ answer: ExpectedAnswer,
        into body: ResponseBody, _ route: (String) -> Route,
        _ understand: (UnsafeRawBufferPointer) throws(IOError) -> Result
    ) throws(IOError) -> Result {
        for attempt in 1... {
            do throws(IOError) {
                return try device.within { session throws(IOError) in
                    var request = HTTPRequest(
                        .post, route(session).path, contentType: MediaType.frames)
                    if parts.count == 1 { request.body = parts[0] } else { request.parts = parts }
                    try device.server.send(request, operation, answer, into: body)
                    let result = try understand(body.bytes)
                    device.noteUse()
                    return result
                }
            } catch {
                guard error.kind == .corrupted else { throw error }
                guard attempt < Self.attempts else {
                    throw .network(
                        device.name, operation,
                        reason: "corrupted on the way \(Self.attempts) times in a row")
                }
                device.server.note("\(operation): corrupted on the way; trying again")
            }
        }
        preconditionFailure("the last attempt returns or throws")
    }
}

extension [UnsafeRawBufferPointer] {
    fileprivate var byteCount: Int { reduce(0) { $0 + $1.count } }
}

/// Returns whether the extents cover exactly the ranges, split or not.
private func covers(_ extents: [Extent], _ ranges: [ByteRange]) -> Bool {
    var rest = ranges[...]
    for extent in extents {
        guard let first = rest.first, extent.range.offset == first.offset,
            extent.range.end <= first.end
        else { return false }
        if extent.range.end == first.end {
            rest.removeFirst()
        } else {
            rest[rest.startIndex] = ByteRange(extent.range.end, to: first.end)
        }
    }
    return rest.isEmpty
}
