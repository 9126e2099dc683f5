// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import Digests
internal import LinuxIO

/// The block digests from a server's comparison.
struct ComparedBlocks {
    let differences: [RegionDifference]
    let regions: [ByteRange]

    init(_ differences: [RegionDifference], _ part: DigestWorker.LocalPart) {
        self.differences = differences
        regions = part.regions
    }
}

/// Checks data before it is written, because the server may have read other bytes than it compared.
extension DigestWorker {
    /// Whether data matches the comparison; a block that is sent in several pieces is not checked.
    ///
    /// - Parameter request: ascending.
    mutating func isAsCompared(
        _ payload: ExtentData, _ request: ArraySlice<Extent>, _ compared: ComparedBlocks
    ) throws(IOError) -> Bool {
        var reader = PayloadReader(payload)
        var next = 0
        for extent in request {
            var offset = extent.range.offset
            while offset < extent.range.end {
                while compared.regions[compared.differences[next].index].end <= offset { next += 1 }
                let difference = compared.differences[next]
                let region = compared.regions[difference.index]
                let number = (offset - region.offset) / layout.block
                let start = region.offset + number * layout.block
                let block = ByteRange(start, to: min(start + layout.block, region.end))
                offset = min(block.end, extent.range.end)
                guard extent.range.offset <= start, block.end <= extent.range.end else { continue }
                try hasher.hashBlocks(of: reader.bytes(of: block, staging: memory))
                let place = number * hasher.digestSize..<(number + 1) * hasher.digestSize
                guard
                    hasher.blockDigests[..<hasher.digestSize]
                        .elementsEqual(difference.digests[place])
                else { return false }
            }
        }
        return true
    }

    /// The waits before further attempts.
    ///
    /// Together they are longer than the client caches the source's change counter.
    private static let waits: [Duration] = [
        .zero, .milliseconds(50), .milliseconds(200), .milliseconds(600),
    ]

    /// Repeats a window after the server sent other bytes than it had compared.
    ///
    /// Usually another program wrote to the source in between. If every attempt fails, the source's
    /// change counter shows whether a program writes all the time. If not, it throws, because
    /// memory, a cache or the device of the server is faulty.
    mutating func moveAgain(_ part: LocalPart) throws(IOError) -> End {
        let counter = pass.source.changeCounter()
        for wait in Self.waits {
            guard pause(for: wait, unless: { [pass] in pass.isStopping }) else { return .stopped }
            // A former hole may contain data by now.
            let end = try compareAndMove(part, localIsHole: false).end
            guard end == .changed else { return end }
        }
        if let counter, let now = pass.source.changeCounter(), now != counter {
            return try compareAndMove(part, localIsHole: false, checks: false).end
        }
        throw IOError(
            pass.source.name, "read",
            reason: "the server sends other bytes than it compares, although no program is known "
                + "to write to it, near offset \(part.ranges.first?.offset ?? 0)",
            advice: "Memory, a cache or the device of the server may be faulty; "
                + "if the source is in use, take a snapshot of it as the source.")
    }
}

/// Finds ranges in a payload, which must ascend.
private struct PayloadReader {
    private let payload: ExtentData
    /// The extent in which the last range began.
    private var index = 0
    /// The start of that extent's data.
    private var position = 0

    init(_ payload: ExtentData) { self.payload = payload }

    /// The bytes of a range, in the payload, or in `memory` if a part is zeros.
    mutating func bytes(
        of range: ByteRange, staging memory: UnsafeMutableRawBufferPointer
    ) -> UnsafeRawBufferPointer {
        while payload.extents[index].range.end <= range.offset {
            position += dataLength(of: index)
            index += 1
        }
        let first = payload.extents[index]
        if first.kind == .data, first.range.end >= range.end {
            let start = position + range.offset - first.range.offset
            return UnsafeRawBufferPointer(rebasing: payload.data[start..<start + range.length])
        }
        let whole = UnsafeMutableRawBufferPointer(rebasing: memory[..<range.length])
        whole.initializeMemory(as: UInt8.self, repeating: 0)
        var (ahead, start) = (index, position)
        while ahead < payload.extents.count,
            let part = payload.extents[ahead].range.intersection(range)
        {
            let extent = payload.extents[ahead]
            if extent.kind == .data {
                let first = start + part.offset - extent.range.offset
                slice(whole, part.offset - range.offset, whole.count)
                    .copyMemory(from: slice(payload.data, first, first + part.length))
            }
            start += dataLength(of: ahead)
            ahead += 1
        }
        return UnsafeRawBufferPointer(whole)
    }

    private func dataLength(of index: Int) -> Int {
        let extent = payload.extents[index]
        return extent.kind == .data ? extent.range.length : 0
    }
}
