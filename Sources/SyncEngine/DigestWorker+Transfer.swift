// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import LinuxIO
internal import WireProtocol

/// Moving what differs.
extension DigestWorker {
    /// Sends what differs.
    ///
    /// - Returns: whether all of it was sent; `false` when the pass is to stop.
    mutating func push(_ batch: Batch) -> Bool {
        for request in batch.extents.inRequests(unit: layout.block) {
            if pass.isStopping { return false }
            do throws(IOError) {
                try channel.write(request, pieces(of: request, in: batch.places))
                for extent in request { count(extent) }
            } catch {
                if error.isNetwork {
                    // The one who cancelled does not wait for a lost server.
                    if !pass.control.isCancelled { pass.fail(error) }
                    return false
                }
                ownTally.addWriteError(error)
            }
        }
        return true
    }

    /// Where the data of extents is in the memory, in which regions lie one after the other.
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
            // An extent goes on in the next region, where that is adjacent.
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

    /// Fetches what differs and writes it here.
    ///
    /// - Returns: whether all of it was written; `false` when the pass is to stop.
    mutating func pull(
        _ extents: [Extent], targetIsZero: Bool = false
    ) throws(IOError) -> Bool {
        for extent in extents where extent.kind == .zero { write(extent, nil) }
        let data = extents.filter { $0.kind == .data }
        for request in data.inRequests(unit: layout.block) {
            if pass.isStopping { return false }
            let payload = try channel.read(request.map(\.range))
            if !targetIsZero {
                for extent in payload.extents where extent.kind == .zero { write(extent, nil) }
            }
            let extents = payload.extents.filter { $0.kind == .data }
            let transfers = payload.transfers
            for (index, isDone) in local.attempt(transfers, .write).enumerated() {
                if isDone {
                    count(extents[index])
                } else {
                    write(extents[index], UnsafeRawBufferPointer(transfers[index].memory))
                }
            }
        }
        return true
    }

    /// Writes an extent to the local target, through aligned memory where its own is not.
    private mutating func write(_ extent: Extent, _ bytes: UnsafeRawBufferPointer?) {
        do throws(IOError) {
            let unit = UInt(local.geometry.alignment)
            if let bytes, UInt(bitPattern: bytes.baseAddress) % unit == 0 {
                try local.write(bytes, at: extent.range.offset)
            } else if let bytes {
                var offset = 0
                while offset < bytes.count {
                    let length = min(bytes.count - offset, memory.count)
                    let staging = UnsafeMutableRawBufferPointer(rebasing: memory[..<length])
                    staging.copyMemory(
                        from: UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + length]))
                    try local.write(
                        UnsafeRawBufferPointer(staging), at: extent.range.offset + offset)
                    offset += length
                }
            } else {
                try local.zero(extent.range)
            }
            count(extent)
        } catch {
            ownTally.addWriteError(error)
        }
    }
}
