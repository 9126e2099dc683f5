// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
internal import Glibc
internal import LinuxIO

/// Lays the records of a delta over the windows of its target, in ascending order, and checks what
/// they would overwrite.
final class DeltaOverlay {
    /// Bytes that neither the base nor the result has.
    private(set) var unproven = 0
    private(set) var firstUnproven = 0
    /// Whether a unit is that of the result and not that of the base.
    private(set) var sawResult = false

    private let delta: DeltaReader
    private let statement: DeltaStatement
    private let records: RecordCursor
    private let proofs: ByteCursor
    private var hasher: UnitHasher
    private let scratch = AlignedBuffer(count: WindowStream.length)
    private var current: (record: DeltaRecord, proofs: [UInt8]?)?
    private var count = 0

    init(_ delta: DeltaReader, _ statement: DeltaStatement) throws(IOError) {
        self.delta = delta
        self.statement = statement
        records = delta.records()
        proofs = delta.proofCursor()
        hasher = try UnitHasher(size: statement.proof)
        try advance()
    }

    /// Whether the next record starts before the end of a window.
    func touches(_ window: ByteRange) throws(IOError) -> Bool {
        current.map { $0.record.range.offset < window.end } ?? false
    }

    /// Returns the window as the result has it.
    func lay(
        over content: WindowStream.Content, _ window: ByteRange
    ) throws(IOError) -> WindowStream.Content {
        guard try touches(window) else { return content }
        var old: UnsafeRawBufferPointer?
        let memory = scratch.bytes
        if case .data(let bytes) = content {
            old = bytes
            memory.copyMemory(from: bytes)
        } else {
            memory.initializeMemory(as: UInt8.self, repeating: 0)
        }
        while let (record, digests) = current, record.range.offset < window.end {
            if let piece = record.range.intersection(window) {
                try lay(piece, of: record, digests, old, window, memory)
            }
            guard record.range.end <= window.end else { break }
            try advance()
        }
        return .data(UnsafeRawBufferPointer(memory))
    }

    /// Throws unless there were as many records and proofs as the trailer says.
    func finish() throws(IOError) {
        guard current == nil, count == statement.records, proofs.rest == 0 else {
            throw .damagedDelta(delta.name, "its parts contradict each other")
        }
    }

    private func advance() throws(IOError) {
        guard let record = try records.next() else {
            current = nil
            return
        }
        count += 1
        switch try proofs.take(1)[0] {
        case UnitProof.zeros: current = (record, nil)
        case UnitProof.digests where record.range.length <= WindowStream.length:
            let units = (record.range.length + statement.unit - 1) / statement.unit
            current = (record, try proofs.take(units * statement.proof))
        default: throw .damagedDelta(delta.name, "its parts contradict each other")
        }
    }

    private func lay(
        _ piece: ByteRange, of record: DeltaRecord, _ digests: [UInt8]?,
        _ old: UnsafeRawBufferPointer?, _ window: ByteRange,
        _ memory: UnsafeMutableRawBufferPointer
    ) throws(IOError) {
        let start = piece.offset - window.offset
        let new = slice(memory, start, start + piece.length)
        if let place = record.place {
            try delta.bytes.read(into: new, at: place + piece.offset - record.range.offset)
        } else {
            new.initializeMemory(as: UInt8.self, repeating: 0)
        }
        let before = old.map { slice($0, start, start + piece.length) }
        // The base's zeros, as in a hole.
        if digests == nil, before.map(isZero) ?? true { return }
        if areEqual(before, UnsafeRawBufferPointer(new)) {
            sawResult = true
            return
        }
        var zeros = [UInt8](repeating: 0, count: before == nil ? statement.unit : 0)
        for unit in ByteRange(offset: 0, length: piece.length).pieces(of: statement.unit) {
            let after = UnsafeRawBufferPointer(slice(new, unit.offset, unit.end))
            let index = (piece.offset - record.range.offset + unit.offset) / statement.unit
            let isKnown = try zeros.withUnsafeMutableBytes { zeros in
                Result { () throws(IOError) in
                    let now =
                        before.map { slice($0, unit.offset, unit.end) }
                        ?? UnsafeRawBufferPointer(slice(zeros, 0, unit.length))
                    return try self.isKnown(now, after, digests, index)
                }
            }.get()
            if isKnown { continue }
            if unproven == 0 { firstUnproven = piece.offset + unit.offset }
            unproven += unit.length
        }
    }

    /// Whether a unit is that of the base or that of the result.
    private func isKnown(
        _ now: UnsafeRawBufferPointer, _ after: UnsafeRawBufferPointer, _ digests: [UInt8]?,
        _ index: Int
    ) throws(IOError) -> Bool {
        if let digests {
            let place = index * statement.proof
            if try hasher.proof(of: now) == digests[place..<place + statement.proof] { return true }
        } else if isZero(now) {
            return true
        }
        guard areEqual(now, after) else { return false }
        sawResult = true
        return true
    }

    private func areEqual(
        _ first: UnsafeRawBufferPointer?, _ second: UnsafeRawBufferPointer
    ) -> Bool {
        guard let first else { return isZero(second) }
        guard let one = first.baseAddress, let other = second.baseAddress else { return true }
        return memcmp(one, other, second.count) == 0
    }
}
