// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

package import BlockDevices
package import LinuxIO

/// Writes the records of a delta to a target, several small ones at once.
///
/// The target may be one whose old bytes are kept. It is neither cut nor extended nor flushed here.
package final class DeltaApplication {
    /// Bytes.
    package private(set) var written = 0
    package private(set) var zeroed = 0

    private let delta: DeltaReader
    private let target: any BlockDevice
    private let isCancelled: () -> Bool
    private let buffer = AlignedBuffer(count: RbdDiff.longestData)
    private var waiting: [Transfer] = []
    private var used = 0
    private var zeros: ByteRange?

    /// Records that are written at once.
    private static let mostWaiting = 256
    /// Bytes of a piece that does not suit the target's units.
    private static let oddPiece = 1 << 20

    package init(
        _ delta: DeltaReader, target: any BlockDevice, unless isCancelled: @escaping () -> Bool
    ) {
        self.delta = delta
        self.target = target
        self.isCancelled = isCancelled
    }

    package func run() throws(IOError) {
        let records = delta.records()
        while let record = try records.next() {
            if isCancelled() { throw cancelled }
            guard let place = record.place else {
                try addZeros(record.range)
                continue
            }
            try writeZeros()
            for piece in record.range.pieces(of: buffer.count) {
                try add(piece, from: place + piece.offset - record.range.offset)
            }
        }
        try writeZeros()
        try writeWaiting()
    }

    private var cancelled: IOError {
        var error = IOError(target.name, "apply", reason: "interrupted, incomplete")
        error.kind = .cancelled
        error.advice = "A second run finishes the job."
        return error
    }

    private func add(_ range: ByteRange, from place: Int) throws(IOError) {
        if range.length > buffer.count - used || waiting.count == Self.mostWaiting {
            try writeWaiting()
        }
        let memory = slice(buffer.bytes, used, used + range.length)
        try delta.bytes.read(into: memory, at: place)
        used = min((used + range.length).roundedUp(to: AlignedBuffer.alignment), buffer.count)
        waiting.append(Transfer(into: memory, at: range.offset))
    }

    private func writeWaiting() throws(IOError) {
        defer {
            waiting.removeAll(keepingCapacity: true)
            used = 0
        }
        let fitting = waiting.filter { suits($0.range) }
        for (transfer, isDone) in zip(fitting, target.attempt(fitting, .write)) where !isDone {
            try target.write(UnsafeRawBufferPointer(transfer.memory), at: transfer.offset)
        }
        for transfer in waiting where !suits(transfer.range) { try patch(transfer) }
        written += waiting.reduce(0) { $0 + $1.memory.count }
    }

    /// Whether the target can transfer a range without the bytes beside it.
    private func suits(_ range: ByteRange) -> Bool {
        let (unit, size) = (target.geometry.alignment, target.geometry.size)
        return range.offset.isMultiple(of: unit)
            && (range.end.isMultiple(of: unit) || range.end == size)
    }

    private func patch(_ transfer: Transfer) throws(IOError) {
        for piece in ByteRange(offset: 0, length: transfer.memory.count).pieces(of: Self.oddPiece) {
            let bytes = Array(slice(transfer.memory, piece.offset, piece.end))
            try target.apply(Patch(bytes, at: transfer.offset + piece.offset))
        }
    }

    private func addZeros(_ range: ByteRange) throws(IOError) {
        if let pending = zeros, pending.end == range.offset {
            zeros = ByteRange(pending.offset, to: range.end)
            return
        }
        try writeZeros()
        zeros = range
    }

    private func writeZeros() throws(IOError) {
        guard let range = zeros, !range.isEmpty else { return }
        zeros = nil
        // Records of other programs may overlap.
        try writeWaiting()
        let unit = target.geometry.alignment
        let isAtEnd = range.end == target.geometry.size
        let start = min(range.offset.roundedUp(to: unit), range.end)
        let end = isAtEnd ? range.end : max(start, range.end / unit * unit)
        try patchZeros(ByteRange(range.offset, to: start))
        // Pieces, so that an interruption need not wait for long.
        for piece in ByteRange(start, to: end).pieces(of: RbdDiff.longestZeros) {
            if isCancelled() { throw cancelled }
            try target.zero(piece)
        }
        try patchZeros(ByteRange(end, to: range.end))
        zeroed += range.length
    }

    private func patchZeros(_ range: ByteRange) throws(IOError) {
        guard !range.isEmpty else { return }
        try target.apply(Patch([UInt8](repeating: 0, count: range.length), at: range.offset))
    }
}

extension Transfer {
    fileprivate var range: ByteRange { ByteRange(offset: offset, length: memory.count) }
}
