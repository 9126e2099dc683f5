// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import Digests
internal import LinuxIO
internal import NIOCore
internal import WireProtocol

/// What the requests of a session do. Each blocks, on a thread with memory of its own.
extension Session {
    /// Bytes that are read and hashed in one go: as many as stay in the processor's cache.
    private static let step = 1 << 20

    /// Compares a window by its digests, or tells where the data is.
    ///
    /// - Parameters:
    ///   - body: a `CompareRequest`.
    ///   - memory: of the thread.
    /// - Returns: a `CompareAnswer`, or a `DataMap`.
    /// - Throws: a malformed or corrupted request, and the device's error.
    func compare(
        _ body: UnsafeRawBufferPointer, _ memory: UnsafeMutableRawBufferPointer
    ) throws(Problem) -> ByteBuffer {
        let content = try open(body)
        let request: CompareRequest
        do throws(WireError) {
            request = try CompareRequest(content, layout: layout, size: device.geometry.size)
        } catch {
            throw Problem(error)
        }
        var answer: ByteBuffer
        switch request {
        case .map(let range): answer = ByteBuffer(bytes: try map(range).encoded)
        case .compare(let window, let digests):
            answer = try differences(of: window, from: digests, memory)
            count { $0.compared += window.reduce(0) { $0 + $1.length } }
        }
        try seal(&answer)
        return answer
    }

    /// Checks the digest of a frame and takes it off.
    private func open(_ body: UnsafeRawBufferPointer) throws(Problem) -> UnsafeRawBufferPointer {
        var hasher = try makeHasher()
        do throws(SealedFrame.Failure) { return try SealedFrame.open(body, &hasher) } catch {
            throw Problem(error)
        }
    }

    /// Puts the digest behind an answer.
    private func seal(_ answer: inout ByteBuffer) throws(Problem) {
        var hasher = try makeHasher()
        let count = answer.readableBytes
        answer.reserveCapacity(minimumWritableBytes: layout.digestSize)
        var failure: SealedFrame.Failure?
        answer.withVeryUnsafeMutableBytes { memory in
            // Nothing has been read of it: the content starts where the memory does.
            do throws(SealedFrame.Failure) {
                _ = try SealedFrame.seal(memory, count: count, &hasher)
            } catch {
                failure = error
            }
        }
        if let failure { throw Problem(failure) }
        answer.moveWriterIndex(forwardBy: layout.digestSize)
    }

    private func map(_ range: ByteRange) throws(Problem) -> DataMap {
        var map = DataMap(end: range.end, runs: [])
        var offset = range.offset
        while offset < range.end {
            let run: ByteRange?
            do throws(IOError) { run = try device.nextData(from: offset) } catch {
                throw Problem(error)
            }
            guard let part = run?.intersection(range) else { break }
            map.runs.append(part)
            offset = part.end
            if map.runs.count == Limits.runs {
                map.end = offset
                break
            }
        }
        return map
    }

    /// Where a window differs, as an answer that is not sealed yet.
    private func differences(
        of window: [ByteRange], from theirs: UnsafeRawBufferPointer,
        _ memory: UnsafeMutableRawBufferPointer
    ) throws(Problem) -> ByteBuffer {
        var hasher = try makeHasher()
        let size = layout.digestSize
        let blocks = RegionScratch(layout)
        var answer = ByteBuffer()
        answer.writeInteger(UInt32(0))
        var found: UInt32 = 0
        // A region may be larger than a step.
        let step = max(layout.region, Self.step / layout.region * layout.region)
        let longest = window.map(\.length).max() ?? 0
        let buffer = RegionMemory(memory, atLeast: min(step, longest))
        let ours = Scratch((step / layout.region) * size)
        var run = DataRun()
        var first = 0
        for piece in window.flatMap({ $0.pieces(of: step) }) {
            let bytes = UnsafeMutableRawBufferPointer(rebasing: buffer.bytes[..<piece.length])
            let isHole = try !run.overlaps(piece, of: device)
            if isHole {
                try hashZeros(piece, &hasher, into: ours)
            } else {
                try readAndHash(piece, bytes, &hasher, into: ours)
            }
            for (index, region) in layout.regions(of: [piece]).enumerated() {
                let place = (first + index) * size..<(first + index + 1) * size
                if ours.bytes[index * size..<(index + 1) * size].elementsEqual(theirs[place]) {
                    continue
                }
                let start = region.offset - piece.offset
                try blocks.hash(
                    isHole ? nil : UnsafeRawBufferPointer(bytes)[start..<start + region.length],
                    length: region.length, &hasher)
                blocks.append(index: first + index, region, to: &answer)
                found += 1
            }
            first += layout.regions(in: piece)
        }
        answer.setInteger(found, at: answer.readerIndex, endianness: .little)
        return answer
    }

    private func readAndHash(
        _ piece: ByteRange, _ bytes: UnsafeMutableRawBufferPointer, _ hasher: inout BlockHasher,
        into digests: Scratch
    ) throws(Problem) {
        do throws(IOError) { try device.read(into: bytes, at: piece.offset) } catch {
            throw Problem(error)
        }
        do throws(DigestError) {
            try hasher.regionDigests(
                of: UnsafeRawBufferPointer(bytes), regionSize: layout.region, into: digests.bytes)
        } catch {
            throw Problem(error)
        }
    }

    /// One digest a region of a piece without data.
    private func hashZeros(
        _ piece: ByteRange, _ hasher: inout BlockHasher, into digests: Scratch
    ) throws(Problem) {
        let size = layout.digestSize
        let whole = try zeroRegionDigest(&hasher)
        for index in 0..<layout.regions(in: piece) {
            let region = layout.region(index, of: piece)
            let digest =
                region.length == layout.region ? whole : try digestOfZeros(region.length, &hasher)
            UnsafeMutableRawBufferPointer(rebasing: digests.bytes[(index * size)...])
                .copyBytes(from: digest)
        }
    }

    /// Reads ranges.
    ///
    /// - Parameters:
    ///   - body: a read request of `ExtentFrame`.
    ///   - memory: of the thread.
    /// - Returns: the payload.
    /// - Throws: a malformed or corrupted request, and the device's error.
    func read(
        _ body: UnsafeRawBufferPointer, _ memory: UnsafeMutableRawBufferPointer
    ) throws(Problem) -> ByteBuffer {
        let content = try open(body)
        let ranges: [ByteRange]
        do throws(WireError) {
            ranges = try ExtentFrame.readRequest(
                content, size: device.geometry.size, unit: device.geometry.alignment)
        } catch {
            throw Problem(error)
        }
        // Each range begins where direct I/O can put it.
        var extents: [Extent] = []
        var pieces: [UnsafeRawBufferPointer] = []
        let unit = device.geometry.alignment
        let room = ranges.reduce(0) { $0 + ($1.length + unit - 1) / unit * unit }
        let buffer = RegionMemory(memory, atLeast: room)
        var place = 0
        let transfers = ranges.map { range in
            defer { place += (range.length + unit - 1) / unit * unit }
            return Transfer(
                into: UnsafeMutableRawBufferPointer(
                    rebasing: buffer.bytes[place..<place + range.length]), at: range.offset)
        }
        do throws(IOError) { try device.read(transfers) } catch { throw Problem(error) }
        for (range, transfer) in zip(ranges, transfers) {
            append(range, UnsafeRawBufferPointer(transfer.memory), to: &extents, &pieces)
        }
        if extents.count > Limits.extents {
            // So many runs of zeros do not pay.
            extents = ranges.map { Extent($0, .data) }
            pieces = transfers.map { UnsafeRawBufferPointer($0.memory) }
        }
        let answer = try frame(extents, pieces)
        count { $0.read += pieces.reduce(0) { $0 + $1.count } }
        return answer
    }

    /// Tells the zero blocks of a range from the rest.
    private func append(
        _ range: ByteRange, _ bytes: UnsafeRawBufferPointer, to extents: inout [Extent],
        _ pieces: inout [UnsafeRawBufferPointer]
    ) {
        var start = 0
        while start < range.length {
            var end = min(start + layout.block, range.length)
            let isZero = isZero(UnsafeRawBufferPointer(rebasing: bytes[start..<end]))
            while end < range.length {
                let next = min(end + layout.block, range.length)
                let block = UnsafeRawBufferPointer(rebasing: bytes[end..<next])
                guard BlockDevices.isZero(block) == isZero else { break }
                end = next
            }
            let part = ByteRange(range.offset + start, to: range.offset + end)
            extents.append(Extent(part, isZero ? .zero : .data))
            if !isZero { pieces.append(UnsafeRawBufferPointer(rebasing: bytes[start..<end])) }
            start = end
        }
    }

    private func frame(
        _ extents: [Extent], _ pieces: [UnsafeRawBufferPointer]
    ) throws(Problem) -> ByteBuffer {
        let data = pieces.reduce(0) { $0 + $1.count }
        let table = ExtentFrame.tableSize(count: extents.count)
        var answer = ByteBufferAllocator().buffer(capacity: data + table + layout.digestSize)
        for piece in pieces { answer.writeBytes(piece) }
        answer.writeWithUnsafeMutableBytes(minimumWritableBytes: table) { memory in
            ExtentFrame.writeTable(extents, to: memory)
            return table
        }
        try seal(&answer)
        return answer
    }

    /// Writes extents, once their digest is found to be right.
    ///
    /// - Parameters:
    ///   - body: a payload of `ExtentFrame`; its data is aligned where the body is.
    ///   - memory: of the thread.
    /// - Throws: a malformed or corrupted request, and the device's error.
    func write(
        _ body: UnsafeRawBufferPointer, _ memory: UnsafeMutableRawBufferPointer
    ) throws(Problem) {
        guard mode == .write else {
            throw Problem(
                .access, status: 403, "The session may not write",
                detail: "the session is for reading")
        }
        let content = try open(body)
        let payload: ExtentFrame.Payload
        do throws(WireError) {
            payload = try ExtentFrame.readPayload(
                content, size: device.geometry.size, unit: device.geometry.alignment)
        } catch {
            throw Problem(error)
        }
        let transfers = payload.transfers
        do throws(IOError) {
            for extent in payload.extents where extent.kind == .zero {
                try device.zero(extent.range)
                count { $0.zeroed += extent.range.length }
            }
            let done = zip(transfers, device.attempt(transfers, .write))
            count { $0.written += done.reduce(0) { $0 + ($1.1 ? $1.0.memory.count : 0) } }
            for (transfer, isDone) in done where !isDone {
                try writeAligned(transfer, memory)
                count { $0.written += transfer.memory.count }
            }
        } catch {
            throw Problem(error)
        }
    }

    /// Directly where memory and length allow it.
    private func writeAligned(
        _ transfer: Transfer, _ memory: UnsafeMutableRawBufferPointer
    ) throws(IOError) {
        let (bytes, offset) = (UnsafeRawBufferPointer(transfer.memory), transfer.offset)
        let address = UInt(bitPattern: bytes.baseAddress)
        if address % UInt(device.geometry.alignment) == 0 {
            return try device.write(bytes, at: offset)
        }
        var done = 0
        while done < bytes.count {
            let length = min(bytes.count - done, memory.count)
            let staging = UnsafeMutableRawBufferPointer(rebasing: memory[..<length])
            staging.copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[done..<done + length]))
            try device.write(UnsafeRawBufferPointer(staging), at: offset + done)
            done += length
        }
    }

    /// Puts all on the medium.
    ///
    /// - Parameter size: the size to cut the target to before that; `nil` leaves it as it is.
    /// - Throws: the device's error: what was written may be lost.
    func commit(size: Int?) throws(Problem) {
        do throws(IOError) {
            if let size {
                guard mode == .write, size == record.resizeTo || size == device.geometry.size else {
                    throw IOError(
                        name, "resize to \(size) bytes",
                        reason: "the session was not opened for that")
                }
                if size < device.geometry.size { try device.resize(to: size) }
            }
            try flush()
        } catch {
            throw Problem(error)
        }
    }
}

extension Problem {
    fileprivate init(_ failure: SealedFrame.Failure) {
        switch failure {
        case .corrupted:
            self.init(
                .corrupted, status: 422, "The frame is corrupted",
                detail: "the frame's digest is not that of its bytes; nothing was done")
        case .failed(let reason):
            self.init(.digest, status: 500, "libcrypto failed", detail: reason)
        }
    }
}
