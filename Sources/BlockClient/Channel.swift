// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import DeviceProbe
internal import Digests
internal import LinuxIO
internal import SyncEngine
internal import WireProtocol

/// One thread's way to a remote device: frames, their digests, and a second try where one of them
/// was corrupted on the way.
///
/// It may move between threads, but one at a time uses it.
final class Channel: RemoteChannel, @unchecked Sendable {
    private unowned let device: RemoteBlockDevice
    private let method: DigestMethod
    private let key: DigestKey?
    /// What is sent; grows with what there is to send.
    private var frame = AlignedBuffer(count: 64 << 10)
    private let comparison = ResponseBody(limit: Limits.answer)
    private let payload = ResponseBody(limit: Limits.body)

    /// How often in a row a frame may be corrupted, one way or the other.
    private static let attempts = 3

    init(_ device: RemoteBlockDevice) {
        self.device = device
        method = device.digestMethod
        key = device.digestKey
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
        UnsafeMutableRawBufferPointer(rebasing: frame.bytes[header..<content])
            .copyMemory(from: digests)
        let layout = try layout()
        let regions = layout.regions(of: window)
        return try exchange(
            content, "compare at \(ByteRange(first.offset, to: last.end))", into: comparison,
            { .compare(session: $0) }
        ) { answer throws(WireError) in
            try CompareAnswer.read(answer, regions: regions, layout: layout)
        }
    }

    /// Asks where the data is.
    func map(_ range: ByteRange) throws(IOError) -> DataMap {
        CompareRequest.writeMap(of: range, to: frame.bytes)
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
        do throws(DigestError) {
            var hasher = try BlockHasher(method, key: key)
            try hasher.digest(of: all, into: digest)
        } catch {
            throw IOError(device.name, error.operation, reason: error.reason)
        }
        all.append(UnsafeRawBufferPointer(digest))
        try attempt(all, "write at \(range)", into: payload, { .write(session: $0) }) {
            _ throws(WireError) in
        }
    }

    func read(_ ranges: [ByteRange]) throws(IOError) -> ExtentFrame.Payload {
        guard let first = ranges.first, let last = ranges.last else {
            preconditionFailure("nothing to read")
        }
        let content = ExtentFrame.tableSize(count: ranges.count)
        reserve(content)
        ExtentFrame.writeTable(ranges.map { Extent($0, .data) }, to: frame.bytes)
        let range = ByteRange(first.offset, to: last.end)
        let size = device.geometry.size
        return try exchange(
            content, "read at \(range)", into: payload, { .read(session: $0) }
        ) { answer throws(WireError) in
            let payload = try ExtentFrame.readPayload(answer, size: size, unit: 1)
            guard covers(payload.extents, ranges) else {
                throw WireError("it is not what was asked for")
            }
            return payload
        }
    }

    private func layout() throws(IOError) -> WireLayout {
        do throws(WireError) {
            return try WireLayout(
                block: device.record.block, region: device.record.region,
                digestSize: method.byteCount)
        } catch {
            throw .network(device.name, "compare", reason: error.reason)
        }
    }

    /// Makes room for a frame, its digest included.
    private func reserve(_ content: Int) {
        guard content + method.byteCount > frame.count else { return }
        frame = AlignedBuffer(count: max(2 * frame.count, content + method.byteCount))
    }

    /// Sends the frame and understands the answer, a frame as well.
    private func exchange<Result>(
        _ content: Int, _ operation: String, into body: ResponseBody, _ route: (String) -> Route,
        _ understand: (UnsafeRawBufferPointer) throws(WireError) -> Result
    ) throws(IOError) -> Result {
        let (method, key) = (method, key)
        let length = try seal(content)
        let bytes = UnsafeRawBufferPointer(rebasing: frame.bytes[..<length])
        return try attempt([bytes], operation, into: body, route) { bytes throws(WireError) in
            let opened: UnsafeRawBufferPointer
            do {
                var hasher = try BlockHasher(method, key: key)
                opened = try SealedFrame.open(bytes, &hasher)
            } catch {
                throw WireError(Self.corruption)
            }
            return try understand(opened)
        }
    }

    private static let corruption = "corrupted"

    /// Sends a frame, and again where it or the answer was corrupted.
    private func attempt<Result>(
        _ parts: [UnsafeRawBufferPointer], _ operation: String, into body: ResponseBody,
        _ route: (String) -> Route,
        _ understand: (UnsafeRawBufferPointer) throws(WireError) -> Result
    ) throws(IOError) -> Result {
        for attempt in 1... {
            do throws(IOError) {
                return try device.within { session throws(ProbeError) in
                    var request = HTTPRequest(
                        .post, route(session).path, contentType: MediaType.frames)
                    if parts.count == 1 { request.body = parts[0] } else { request.parts = parts }
                    try device.server.send(request, operation, into: body)
                    do throws(WireError) {
                        let result = try understand(body.bytes)
                        device.noteUse()
                        return result
                    } catch {
                        let isCorrupted = error.reason == Self.corruption
                        throw .failed(
                            .network(
                                device.name, isCorrupted ? RemoteServer.corrupted : operation,
                                reason: isCorrupted
                                    ? "the answer was corrupted on the way"
                                    : "the server's answer cannot be: \(error.reason)"))
                    }
                }
            } catch {
                guard error.isNetwork, error.operation == RemoteServer.corrupted,
                    attempt < Self.attempts
                else {
                    var failure = error
                    if failure.operation == RemoteServer.corrupted {
                        failure.operation = operation
                        failure.reason = "corrupted on the way \(Self.attempts) times in a row"
                    }
                    throw failure
                }
                device.server.note("\(operation): corrupted on the way; trying again")
            }
        }
        preconditionFailure("the last attempt returns or throws")
    }

    private func seal(_ content: Int) throws(IOError) -> Int {
        do {
            var hasher = try BlockHasher(method, key: key)
            return try SealedFrame.seal(frame.bytes, count: content, &hasher)
        } catch {
            throw IOError(device.name, "digest", reason: "\(error)")
        }
    }
}

/// Whether extents are exactly some ranges, cut up or not.
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
