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
            var changed: [ByteRange] = []
            answer = try differences(of: window, from: digests, memory, &changed)
            count { counts, map in
                counts.compared += window.reduce(0) { $0 + $1.length }
                counts.changed += changed.reduce(0) { $0 + $1.length }
                map.mark(window, .compared)
                map.mark(changed, .changed)
            }
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
        let (start, count) = (answer.readerIndex, answer.readableBytes)
        answer.reserveCapacity(minimumWritableBytes: method.byteCount)
        var failure: IOError?
        answer.withVeryUnsafeMutableBytes { memory in
            do throws(IOError) {
                _ = try SealedFrame.seal(
                    slice(memory, start, memory.count), count: count, &hasher)
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
        _ memory: UnsafeMutableRawBufferPointer, _ changed: inout [ByteRange]
    ) throws(Problem) -> ByteBuffer {
        let longest = window.map(\.length).max() ?? 0
        let buffer = try RegionMemory(memory, atLeast: min(layout.window, longest))
        do throws(IOError) {
            return try differences(of: window, from: theirs, in: buffer.bytes, &changed)
        } catch {
            throw Problem(error)
        }
    }

    private func differences(
        of window: [ByteRange], from theirs: UnsafeRawBufferPointer,
        in memory: UnsafeMutableRawBufferPointer, _ changed: inout [ByteRange]
    ) throws(IOError) -> ByteBuffer {
        var hasher = try WindowHasher(
            layout, window: layout.window, method, key: key, zeroDigest: zeroDigest)
        let size = hasher.digestSize
        var answer = ByteBuffer()
        answer.writeInteger(UInt32(0))
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
                changed.append(region)
            }
            first += regions.count
        }
        answer.setInteger(UInt32(changed.count), at: answer.readerIndex, endianness: .little)
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
    func read(_ body: UnsafeRawBufferPointer) throws(Problem) -> ByteBuffer {
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
        // Direct I/O may fill the last sector.
        let room = ranges.reduce(device.geometry.alignment) { $0 + $1.length }
        var answer = PayloadMemory.shared.take()
        var result: Result<[Extent], IOError> = .success([])
        answer.writeWithUnsafeMutableBytes(minimumWritableBytes: room) { memory in
            result = Result { () throws(IOError) in try read(ranges, into: memory) }
            let extents = (try? result.get()) ?? []
            return extents.reduce(0) { $0 + ($1.kind == .data ? $1.range.length : 0) }
        }
        let extents: [Extent]
        do throws(IOError) { extents = try result.get() } catch { throw Problem(error) }
        let data = answer.readableBytes
        let table = ExtentFrame.tableSize(count: extents.count)
        answer.writeWithUnsafeMutableBytes(minimumWritableBytes: table) { memory in
            ExtentFrame.writeTable(extents, to: memory)
            return table
        }
        try seal(&answer)
        try pack(&answer, coding)
        PayloadMemory.shared.keep(answer)
        count { counts, map in
            counts.read += data
            map.mark(ranges, .transferred)
        }
        return answer
    }

    /// Reads ranges, and returns their runs of zero blocks and of data.
    ///
    /// - Parameter memory: aligned for direct I/O; has the data of the runs afterwards, one after
    ///   another.
    private func read(
        _ ranges: [ByteRange], into memory: UnsafeMutableRawBufferPointer
    ) throws(IOError) -> [Extent] {
        var place = 0
        // Only the last range may end within a sector.
        let transfers = ranges.map { range in
            defer { place += range.length }
            return Transfer(into: slice(memory, place, place + range.length), at: range.offset)
        }
        try device.read(transfers)
        var extents: [Extent] = []
        var pieces: [UnsafeRawBufferPointer] = []
        for (range, transfer) in zip(ranges, transfers) {
            append(range, UnsafeRawBufferPointer(transfer.memory), to: &extents, &pieces)
        }
        if extents.count > Limits.extents {
            // So many runs of zeros do not pay.
            extents = ranges.map { Extent($0, .data) }
            pieces = transfers.map { UnsafeRawBufferPointer($0.memory) }
        }
        var end = 0
        for piece in pieces {
            let target = slice(memory, end, end + piece.count)
            if UnsafeRawBufferPointer(target).baseAddress != piece.baseAddress {
                target.copyMemory(from: piece)
            }
            end += piece.count
        }
        return extents
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
                    count { counts, map in
                        counts.zeroed += extent.range.length
                        map.mark(extent.range, .transferred)
                    }
                case .data:
                    let transfer = transfers.removeFirst()
                    if !isDone {
                        try device.write(
                            UnsafeRawBufferPointer(transfer.memory), at: transfer.offset,
                            staging: memory)
                    }
                    forgetLeftovers(in: extent.range)
                    count { counts, map in
                        counts.written += extent.range.length
                        map.mark(extent.range, .transferred)
                    }
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
