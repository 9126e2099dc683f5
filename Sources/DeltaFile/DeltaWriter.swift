// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import LinuxIO

/// Writes the records of a delta in ascending order, and its trailer.
final class DeltaWriter {
    private let sink: DeltaSink
    private let proofs: ProofSpool
    private var hasher: UnitHasher
    private let unit: Int
    /// Zeros in a place where the base has zeros, too; they may grow.
    private var pendingZeros: ByteRange?

    private(set) var records = 0
    /// Bytes.
    private(set) var data = 0
    private(set) var zeros = 0

    /// Writes the head of the stream.
    ///
    /// - Parameters:
    ///   - size: of the result in bytes.
    ///   - directory: for a temporary file.
    init(
        _ sink: DeltaSink, size: Int, unit: Int = UnitProof.usualUnit,
        proof: Int = UnitProof.usualSize, directory: String
    ) throws(IOError) {
        self.sink = sink
        self.unit = unit
        proofs = ProofSpool(in: directory)
        hasher = try UnitHasher(size: proof)
        try sink.write(RbdDiff.header + RbdDiff.head(.size, size))
    }

    /// - Parameters:
    ///   - bytes: of the result; `nil` for zeros.
    ///   - base: as many bytes of the base; `nil` for zeros.
    func add(
        _ range: ByteRange, _ bytes: UnsafeRawBufferPointer?, base: UnsafeRawBufferPointer?
    ) throws(IOError) {
        let base = base.flatMap { isZero($0) ? nil : $0 }
        if bytes == nil, base == nil { return try addZeros(range) }
        try begin(range, bytes)
        guard let base else { return try proofs.append(CollectionOfOne(UnitProof.zeros)) }
        try proofs.append(CollectionOfOne(UnitProof.digests))
        for piece in ByteRange(offset: 0, length: base.count).pieces(of: unit) {
            try proofs.append(hasher.proof(of: slice(base, piece.offset, piece.end)))
        }
    }

    /// - Parameter digests: the proofs of all units, without gaps.
    func add(
        _ range: ByteRange, _ bytes: UnsafeRawBufferPointer?, proofs digests: [UInt8]
    ) throws(IOError) {
        try begin(range, bytes)
        try proofs.append(CollectionOfOne(UnitProof.digests))
        try proofs.append(digests)
    }

    private func begin(_ range: ByteRange, _ bytes: UnsafeRawBufferPointer?) throws(IOError) {
        try writePendingZeros()
        if let bytes {
            precondition(bytes.count == range.length && range.length <= RbdDiff.longestData)
            try sink.write(RbdDiff.head(.data, range.offset, range.length))
            try sink.write(bytes)
            data += range.length
        } else {
            try sink.write(RbdDiff.head(.zeros, range.offset, range.length))
            zeros += range.length
        }
        records += 1
    }

    private func addZeros(_ range: ByteRange) throws(IOError) {
        if let pending = pendingZeros, pending.end == range.offset,
            pending.length + range.length <= RbdDiff.longestZeros
        {
            pendingZeros = ByteRange(pending.offset, to: range.end)
            return
        }
        try writePendingZeros()
        pendingZeros = range
    }

    private func writePendingZeros() throws(IOError) {
        guard let range = pendingZeros else { return }
        pendingZeros = nil
        try begin(range, nil)
        try proofs.append(CollectionOfOne(UnitProof.zeros))
    }

    /// Writes the end record, so that the counts are final.
    func end() throws(IOError) {
        try writePendingZeros()
        try sink.write([RbdDiff.Tag.end.rawValue])
    }

    /// Writes the trailer, and finishes the file.
    ///
    /// - Returns: the length of the delta in bytes.
    func finish(_ statement: DeltaStatement) throws(IOError) -> Int {
        let stream = sink.length
        try sink.write(DeltaTrailer.start(statement))
        try proofs.replay { bytes throws(IOError) in try sink.write(bytes) }
        try sink.write(DeltaTrailer.end(stream: stream, proofs: proofs.count))
        try sink.finish()
        return sink.length
    }
}
