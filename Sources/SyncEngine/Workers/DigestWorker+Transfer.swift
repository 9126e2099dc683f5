// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import LinuxIO

extension DigestWorker {
    /// Sends differing extents; `false` if the pass is stopping.
    mutating func push(_ batch: Batch) -> Bool {
        for request in inRequests(batch.extents) {
            if pass.isStopping { return false }
            do throws(IOError) {
                let (channel, parts) = (channel, pieces(of: request, in: batch.places))
                try pass.timed { () throws(IOError) in try channel.write(request, parts) }
                for extent in request { count(extent) }
            } catch {
                if error.isNetwork {
                    // A user who cancels does not wait for a lost server.
                    if !pass.control.isCancelled { pass.fail(error) }
                    return false
                }
                ownTally.addWriteError(error)
            }
        }
        return true
    }

    private func inRequests(_ extents: [Extent]) -> [ArraySlice<Extent>] {
        remote.requests(
            for: extents, unit: layout.block,
            alignments: [pass.source.geometry.alignment, pass.target.geometry.alignment])
    }

    /// The place of the extents' data in memory, where `places` lie without gaps.
    private func pieces(
        of extents: ArraySlice<Extent>, in places: [ByteRange]
    ) -> [UnsafeRawBufferPointer] {
        var pieces: [UnsafeRawBufferPointer] = []
        var index = 0
        var place = 0
        for extent in extents where extent.kind == .data {
            while index < places.count, places[index].end <= extent.range.offset {
                place += places[index].length
                index += 1
            }
            // An extent continues in the next region if that is adjacent.
            var (ahead, start) = (index, place)
            while ahead < places.count,
                let part = places[ahead].intersection(extent.range)
            {
                let first = start + part.offset - places[ahead].offset
                pieces.append(
                    UnsafeRawBufferPointer(rebasing: memory[first..<first + part.length]))
                start += places[ahead].length
                ahead += 1
            }
        }
        return pieces
    }

    private mutating func count(_ extent: Extent) {
        ownTally.extents += 1
        switch extent.kind {
        case .data: ownTally.written += extent.range.length
        case .zero: ownTally.zeroed += extent.range.length
        }
    }

    /// Fetches extents and writes them to the local target.
    ///
    /// - Parameters:
    ///   - compared: digests that the data must match before it is written; `nil` for any data.
    ///   - targetIsZero: whether the target has only zeros there.
    mutating func pull(
        _ extents: [Extent], as compared: ComparedBlocks?, targetIsZero: Bool = false
    ) throws(IOError) -> End {
        // Short runs of zeros may be written with adjacent data.
        var zeros = extents.filter { $0.kind == .zero }[...]
        let data = extents.filter { $0.kind == .data }
        for request in inRequests(data) {
            if pass.isStopping { return .stopped }
            let channel = channel
            let payload = try pass.timed { () throws(IOError) in
                try channel.read(request.map(\.range))
            }
            if let compared, try !isAsCompared(payload, request, compared) { return .changed }
            var all = payload.extents
            if targetIsZero { all.removeAll { $0.kind == .zero } }
            let end = payload.extents.last?.range.end ?? 0
            let before = zeros.prefix { $0.range.offset < end }
            zeros = zeros.dropFirst(before.count)
            if !before.isEmpty {
                all = (all + before).sorted { $0.range.offset < $1.range.offset }
            }
            write(all, of: payload.data)
        }
        write(Array(zeros), of: UnsafeRawBufferPointer(start: nil, count: 0))
        return .done
    }

    /// - Parameters:
    ///   - extents: ascending.
    ///   - data: the bytes of the data extents, without gaps.
    private mutating func write(_ extents: [Extent], of data: UnsafeRawBufferPointer) {
        let done = local.attempt(extents, of: data, staging: memory)
        var position = 0
        for (extent, isDone) in zip(extents, done) {
            var bytes: UnsafeRawBufferPointer?
            if extent.kind == .data {
                let end = position + extent.range.length
                bytes = UnsafeRawBufferPointer(rebasing: data[position..<end])
                position = end
            }
            if isDone { count(extent) } else { write(extent, bytes) }
        }
    }

    private mutating func write(_ extent: Extent, _ bytes: UnsafeRawBufferPointer?) {
        do throws(IOError) {
            if let bytes {
                try local.write(bytes, at: extent.range.offset, staging: memory)
            } else {
                try local.zero(extent.range)
            }
            count(extent)
        } catch {
            pass.note(writeError: error, in: &ownTally)
        }
    }
}
