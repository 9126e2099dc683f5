// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import LinuxIO

/// Adjacent extents that one write covers.
///
/// To write a short run of zeros with the data beside it is much cheaper than a call of its own.
package struct WriteRun: Hashable {
    /// The indices of the extents.
    package var extents: Range<Int>
    package var range: ByteRange

    /// Bytes; a shorter run of zeros is written like data.
    ///
    /// Punching a hole takes 1 to 4 ms in an image on ext4 or a loop device, however short it is.
    /// No window of a sync is shorter than this, so holes are punched whatever the block size.
    package static let shortZeros = 512 << 10

    /// The runs in ascending order, which cover all data extents.
    ///
    /// - Parameters:
    ///   - extents: ascending.
    ///   - shortZeros: shorter runs of zeros, in bytes, are written like data; longer ones are in
    ///     no run.
    ///   - longest: bytes of a run of several extents at most.
    package static func runs(
        of extents: [Extent], shortZeros: Int, longest: Int = .max
    ) -> [WriteRun] {
        var runs: [WriteRun] = []
        for (index, extent) in extents.enumerated() {
            guard extent.kind == .data || extent.range.length < shortZeros else { continue }
            if let last = runs.last, last.extents.upperBound == index,
                last.range.end == extent.range.offset,
                last.range.length <= longest - min(extent.range.length, longest)
            {
                runs[runs.count - 1].extents = last.extents.lowerBound..<index + 1
                runs[runs.count - 1].range.length += extent.range.length
            } else {
                runs.append(WriteRun(extents: index..<index + 1, range: extent.range))
            }
        }
        return runs
    }
}

extension BlockDevice {
    /// Writes each run with its transfer, small ones together.
    private func attempt(_ runs: [WriteRun], _ transfers: [Transfer], _ done: inout [Bool]) {
        let results = attempt(transfers, .write)
        for (index, run) in runs.enumerated() {
            let transfer = transfers[index]
            let isDone =
                results[index]
                // The caller retries a single extent itself.
                || run.extents.count > 1
                    && (try? write(UnsafeRawBufferPointer(transfer.memory), at: transfer.offset))
                        != nil
            if isDone { for index in run.extents { done[index] = true } }
        }
    }

    /// Writes extents of a window, adjacent ones together, and short runs of zeros like data.
    ///
    /// - Parameters:
    ///   - extents: ascending.
    ///   - window: aligned bytes of the window, zeros included; `nil` if all extents are zeros.
    ///   - start: the window's offset in bytes.
    /// - Returns: for each extent whether it is done. The caller writes the others one by one, and
    ///   so learns the error.
    package func attempt(
        _ extents: [Extent], of window: UnsafeMutableRawBufferPointer?, at start: Int
    ) -> [Bool] {
        var done = extents.map { _ in false }
        guard let window else { return done }
        let runs = WriteRun.runs(of: extents, shortZeros: shortZeros)
        let transfers = runs.map { run in
            let place = run.range.offset - start
            return Transfer(
                into: slice(window, place, place + run.range.length), at: run.range.offset)
        }
        attempt(runs, transfers, &done)
        return done
    }

    /// Writes extents from the network as `attempt(_:of:at:)` writes those of a window.
    ///
    /// - Parameters:
    ///   - extents: ascending.
    ///   - data: the bytes of the data extents, without gaps.
    ///   - staging: scratch memory, aligned for the device.
    package func attempt(
        _ extents: [Extent], of data: UnsafeRawBufferPointer,
        staging: UnsafeMutableRawBufferPointer
    ) -> [Bool] {
        var done = extents.map { _ in false }
        var places: [Int] = []
        var place = 0
        for extent in extents {
            places.append(place)
            if extent.kind == .data { place += extent.range.length }
        }
        var waiting: [(run: WriteRun, transfer: Transfer)] = []
        var used = 0
        func send() {
            attempt(waiting.map(\.run), waiting.map(\.transfer), &done)
            waiting.removeAll()
            used = 0
        }
        let unit = max(geometry.alignment, AlignedBuffer.alignment)
        let runs = WriteRun.runs(of: extents, shortZeros: shortZeros, longest: staging.count)
        for run in runs {
            let first = extents[run.extents.lowerBound]
            let length = run.range.length
            if run.extents.count == 1, first.kind == .data {
                let place = places[run.extents.lowerBound]
                let bytes = UnsafeRawBufferPointer(rebasing: data[place..<place + length])
                // The caller writes unaligned data through aligned memory.
                guard UInt(bitPattern: bytes.baseAddress) % UInt(geometry.alignment) == 0 else {
                    continue
                }
                waiting.append((run, Transfer(of: bytes, at: run.range.offset)))
                continue
            }
            guard length <= staging.count else { continue }
            if used > staging.count - length { send() }
            let memory = UnsafeMutableRawBufferPointer(rebasing: staging[used..<used + length])
            used = min((used + length).roundedUp(to: unit), staging.count)
            var position = 0
            for index in run.extents {
                let count = extents[index].range.length
                let part = slice(memory, position, position + count)
                if extents[index].kind == .data {
                    part.copyMemory(from: slice(data, places[index], places[index] + count))
                } else {
                    part.initializeMemory(as: UInt8.self, repeating: 0)
                }
                position += count
            }
            waiting.append((run, Transfer(into: memory, at: run.range.offset)))
        }
        send()
        return done
    }

    /// Writes bytes, which go through `staging` if they are not aligned for the device.
    package func write(
        _ bytes: UnsafeRawBufferPointer, at offset: Int, staging: UnsafeMutableRawBufferPointer
    ) throws(IOError) {
        if UInt(bitPattern: bytes.baseAddress) % UInt(geometry.alignment) == 0 {
            return try write(bytes, at: offset)
        }
        for piece in ByteRange(offset: 0, length: bytes.count).pieces(of: staging.count) {
            let part = slice(staging, 0, piece.length)
            part.copyMemory(from: slice(bytes, piece.offset, piece.end))
            try write(UnsafeRawBufferPointer(part), at: offset + piece.offset)
        }
    }
}
