// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import Digests
internal import LinuxIO
internal import NIOCore
internal import WireProtocol

/// The operations of a session's requests; each blocks, on a thread with its own memory.
extension Session {
    /// Answers a `CompareRequest` with a `CompareAnswer` or a `DataMap`.
    ///
    /// - Throws: 400 or 422 for a malformed or corrupted request, and the device's error.
    func compare(
        _ body: UnsafeRawBufferPointer, _ memory: UnsafeMutableRawBufferPointer
    ) throws(Problem) -> ByteBuffer {
        let content = try open(body)
        let request: CompareRequest
        do throws(WireError) {
            request = try CompareRequest(
                content, layout: layout, digestSize: method.byteCount, size: device.geometry.size)
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

    private func open(_ body: UnsafeRawBufferPointer) throws(Problem) -> UnsafeRawBufferPointer {
        var hasher = try makeHasher()
        do throws(IOError) { return try SealedFrame.open(body, &hasher) } catch {
            throw Problem(error)
        }
    }

    private func seal(_ answer: inout ByteBuffer) throws(Problem) {
        var hasher = try makeHasher()
        let count = answer.readableBytes
        answer.reserveCapacity(minimumWritableBytes: method.byteCount)
        var failure: IOError?
        answer.withVeryUnsafeMutableBytes { memory in
            // The reader index is still 0, so the content starts where the memory starts.
            do throws(IOError) {
                _ = try SealedFrame.seal(memory, count: count, &hasher)
            } catch {
                failure = error
            }
        }
        if let failure { throw Problem(failure) }
        answer.moveWriterIndex(forwardBy: method.byteCount)
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

    /// The differing regions of a window, as an answer without its digest.
    private func differences(
        of window: [ByteRange], from theirs: UnsafeRawBufferPointer,
        _ memory: UnsafeMutableRawBufferPointer
    ) throws(Problem) -> ByteBuffer {
        let longest = window.map(\.length).max() ?? 0
        let buffer = try RegionMemory(memory, atLeast: min(layout.window, longest))
        do throws(IOError) {
            return try differences(of: window, from: theirs, in: buffer.bytes)
        } catch {
            throw Problem(error)
        }
    }

    private func differences(
        of window: [ByteRange], from theirs: UnsafeRawBufferPointer,
        in memory: UnsafeMutableRawBufferPointer
    ) throws(IOError) -> ByteBuffer {
        var hasher = try WindowHasher(
            layout, window: layout.window, method, key: key, zeroDigest: zeroDigest)
        let size = hasher.digestSize
        var answer = ByteBuffer()
        answer.writeInteger(UInt32(0))
        var found: UInt32 = 0
        var run = DataRun()
        var first = 0
        for piece in window.flatMap({ $0.pieces(of: layout.window) }) {
            let isHole = try !run.overlaps(piece, of: device)
            try hasher.hashRegions(of: piece, on: device, isHole: isHole, memory: memory)
            let regions = layout.regions(of: [piece])
            for (index, region) in regions.enumerated() {
                let ours = hasher.regionDigests[index * size..<(index + 1) * size]
                let place = (first + index) * size..<(first + index + 1) * size
                if ours.elementsEqual(theirs[place]) { continue }
                let start = region.offset - piece.offset
                let bytes = slice(memory, start, start + region.length)
                try hasher.hashBlocks(of: isHole ? nil : UnsafeRawBufferPointer(bytes))
                append(first + index, blocks: layout.blocks(in: region), of: hasher, to: &answer)
                found += 1
            }
            first += regions.count
        }
        answer.setInteger(found, at: answer.readerIndex, endianness: .little)
        if !hasher.zeroDigest.isEmpty { zeroDigest = hasher.zeroDigest }
        return answer
    }

    /// Appends the blocks that were hashed last.
    private func append(
        _ index: Int, blocks: Int, of hasher: borrowing WindowHasher, to answer: inout ByteBuffer
    ) {
        let size = CompareAnswer.entrySize(blocks: blocks, digestSize: hasher.digestSize)
        let zeroBlocks = UnsafeBufferPointer(rebasing: hasher.zeroBlocks[..<blocks])
        let digests = UnsafeRawBufferPointer(
            rebasing: hasher.blockDigests[..<(blocks * hasher.digestSize)])
        answer.writeWithUnsafeMutableBytes(minimumWritableBytes: size) { memory in
            CompareAnswer.writeEntry(
                index: index, zeroBlocks: zeroBlocks, digests: digests, to: memory)
            return size
        }
    }

    /// Answers a read request of `ExtentFrame`; 400 or 422 if it is malformed or corrupted.
    func read(
        _ body: UnsafeRawBufferPointer, _ memory: UnsafeMutableRawBufferPointer
    ) throws(Problem) -> ByteBuffer {
        let content = try open(body)
        let ranges: [ByteRange]
        let coding: PackedFrame.Coding
        do throws(WireError) {
            (ranges, coding) = try ExtentFrame.readRequest(
                content, size: device.geometry.size, unit: device.geometry.alignment,
                codings: zstdLevel == nil ? [.plain] : [.plain, .zstd])
        } catch {
            throw Problem(error)
        }
        // Each range starts at an offset that direct I/O allows.
        var extents: [Extent] = []
        var pieces: [UnsafeRawBufferPointer] = []
        let unit = device.geometry.alignment
        let room = ranges.reduce(0) { $0 + ($1.length + unit - 1) / unit * unit }
        let buffer = try RegionMemory(memory, atLeast: room)
        var place = 0
        let transfers = ranges.map { range in
            defer { place += (range.length + unit - 1) / unit * unit }
            return Transfer(
                into: slice(buffer.bytes, place, place + range.length), at: range.offset)
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
        var answer = try frame(extents, pieces)
        try pack(&answer, coding)
        count { $0.read += pieces.reduce(0) { $0 + $1.count } }
        return answer
    }

    /// Splits a range into runs of zero blocks and runs of data.
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
        var answer = ByteBufferAllocator().buffer(
            capacity: data + table + method.byteCount + PackedFrame.footerSize)
        for piece in pieces { answer.writeBytes(piece) }
        answer.writeWithUnsafeMutableBytes(minimumWritableBytes: table) { memory in
            ExtentFrame.writeTable(extents, to: memory)
            return table
        }
        try seal(&answer)
        return answer
    }

    /// Writes the extents of an `ExtentFrame`, after it has checked the frame's digest.
    func write(
        _ body: UnsafeRawBufferPointer, _ memory: UnsafeMutableRawBufferPointer
    ) throws(Problem) {
        guard mode == .write else { throw Self.isForReading }
        guard beginWriting() else {
            throw Problem(WireError("the session has given the target its size back"))
        }
        defer { finishWriting() }
        try withUnpacked(body) { sealed throws(Problem) in try write(sealed: sealed, memory) }
    }

    private func write(
        sealed body: UnsafeRawBufferPointer, _ memory: UnsafeMutableRawBufferPointer
    ) throws(Problem) {
        let content = try open(body)
        let payload: ExtentData
        do throws(WireError) {
            payload = try ExtentFrame.readPayload(
                content, size: device.geometry.size, unit: device.geometry.alignment)
        } catch {
            throw Problem(error)
        }
        var transfers = payload.transfers[...]
        let done = device.attempt(payload.extents, of: payload.data, staging: memory)
        do throws(IOError) {
            for (extent, isDone) in zip(payload.extents, done) {
                switch extent.kind {
                case .zero:
                    if !isDone { try device.zero(extent.range) }
                    forgetLeftovers(in: extent.range)
                    count { $0.zeroed += extent.range.length }
                case .data:
                    let transfer = transfers.removeFirst()
                    if !isDone {
                        try device.write(
                            UnsafeRawBufferPointer(transfer.memory), at: transfer.offset,
                            staging: memory)
                    }
                    forgetLeftovers(in: extent.range)
                    count { $0.written += extent.range.length }
                }
            }
        } catch {
            throw Problem(error)
        }
    }

    /// Shrinks the target to `size` bytes, if given, and flushes it.
    ///
    /// - Parameter isComplete: whether the client has written everything, and ends the session; then
    ///   the leftovers are zeroed.
    /// - Throws: 400 for a size that the session was not opened for; the device's error, after
    ///   which written data may be lost.
    func commit(size: Int?, isComplete: Bool) throws(Problem) {
        if let size {
            // A client that has written nothing may restore the target's size. A write that comes at
            // the same time must not be cut.
            guard mode == .write,
                size == record.resizeTo || size == device.geometry.size
                    || size == record.sizeBefore && endUnusedWriting()
            else {
                throw Problem(
                    WireError("the session was not opened for a size of \(size) bytes"))
            }
        }
        do throws(IOError) {
            if isComplete && mode == .write {
                for range in leftovers {
                    try device.apply(
                        Patch([UInt8](repeating: 0, count: range.length), at: range.offset))
                    forgetLeftovers(in: range)
                }
            }
            if let size, size < device.geometry.size { try device.resize(to: size) }
            try flush()
        } catch {
            throw Problem(error)
        }
    }
}
