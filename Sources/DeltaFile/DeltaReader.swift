// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

internal import BlockDevices
package import LinuxIO
internal import WireProtocol

/// A delta that is complete: its seal is right, or it is a whole stream of another program.
package final class DeltaReader: Sendable {
    package let name: String
    package let bytes: any DeltaBytes
    /// What the trailer says; `nil` for a stream without one.
    package let statement: DeltaStatement?
    /// The size of the result in bytes; `nil` if the stream does not say it.
    package let size: Int?
    /// The snapshot that the stream starts from, by its name in Ceph.
    package let fromSnapshot: String?
    /// Where the records of data start, and where the proofs start and end.
    private let firstRecord: Int
    private let streamEnd: Int
    private let proofs: Range<Int>

    /// Reads all of it once.
    ///
    /// - Throws: a refusal if it is no delta, truncated or damaged.
    package init(
        _ bytes: any DeltaBytes, name: String, unless isCancelled: () -> Bool
    ) throws(IOError) {
        self.name = name
        self.bytes = bytes
        let head = try DeltaHead(bytes, name)
        firstRecord = head.end
        fromSnapshot = head.fromSnapshot
        if let trailer = try Self.trailer(bytes, name, isCancelled) {
            let (statement, streamEnd, proofs) = trailer
            guard head.size == statement.result.size, firstRecord < streamEnd else {
                throw .damagedDelta(name, "its parts contradict each other")
            }
            self.statement = statement
            self.streamEnd = streamEnd
            self.proofs = proofs
            size = head.size
        } else {
            statement = nil
            streamEnd = bytes.count
            proofs = 0..<0
            size = head.size
            let records = records()
            while try records.next() != nil {
                if isCancelled() { throw Self.cancelled(name) }
            }
        }
    }

    /// The records from the first.
    func records() -> RecordCursor {
        RecordCursor(
            ByteCursor(bytes, name: name, from: firstRecord, to: streamEnd), name: name,
            size: size, unit: statement?.unit)
    }

    /// The proofs of the records, in the same order.
    func proofCursor() -> ByteCursor {
        ByteCursor(bytes, name: name, from: proofs.lowerBound, to: proofs.upperBound)
    }

    static func cancelled(_ name: String) -> IOError {
        var error = IOError(name, "read", reason: "interrupted, nothing was written")
        error.kind = .cancelled
        return error
    }

    /// The trailer of a delta of blkferry, whose seal is checked; `nil` without one.
    private static func trailer(
        _ bytes: any DeltaBytes, _ name: String, _ isCancelled: () -> Bool
    ) throws(IOError) -> (DeltaStatement, streamEnd: Int, proofs: Range<Int>)? {
        let sealed = bytes.count - DeltaTrailer.sealSize
        let place = bytes.count - DeltaTrailer.endSize
        guard place > 0 else { return nil }
        let end = ByteCursor(bytes, name: name, from: place, to: bytes.count)
        // The numbers of a stream without a trailer may be anything.
        guard let stream = try? end.takeNumber(), let proofSize = try? end.takeNumber() else {
            return nil
        }
        guard try end.take(DeltaTrailer.endMagic.count) == DeltaTrailer.endMagic else { return nil }
        let seal = try end.take(DeltaTrailer.sealSize)
        guard try digest(of: bytes, to: sealed, name, isCancelled) == seal else {
            throw .damagedDelta(name, "its digest is not that of its content")
        }
        guard stream <= place - DeltaTrailer.startSize, proofSize <= place - stream else {
            throw .damagedDelta(name, "its parts contradict each other")
        }
        let start = ByteCursor(bytes, name: name, from: stream, to: place - proofSize)
        guard try start.take(DeltaTrailer.magic.count) == DeltaTrailer.magic else {
            throw .damagedDelta(name, "its parts contradict each other")
        }
        let version = try start.takeWord()
        guard version == DeltaTrailer.version else {
            throw .refusal(
                .wrongKind, name, "it is a delta of version \(version)",
                advice: "Use the blkferry that wrote it, or a newer one.")
        }
        let length = try start.takeWord()
        guard length == start.rest, length <= DeltaTrailer.longestText else {
            throw .damagedDelta(name, "its parts contradict each other")
        }
        let text = try start.take(length)
        guard
            let statement = text.withUnsafeBytes({ memory in
                try? WireJSON.decode(DeltaStatement.self, from: memory)
            }), statement.isSane
        else { throw .damagedDelta(name, "its trailer says nothing sensible") }
        return (statement, stream, place - proofSize..<place)
    }

    private static func digest(
        of bytes: any DeltaBytes, to end: Int, _ name: String, _ isCancelled: () -> Bool
    ) throws(IOError) -> [UInt8] {
        let digest = try RunningDigest()
        let buffer = AlignedBuffer(count: 1 << 20)
        for piece in ByteRange(offset: 0, length: end).pieces(of: buffer.count) {
            if isCancelled() { throw cancelled(name) }
            let memory = slice(buffer.bytes, 0, piece.length)
            try bytes.read(into: memory, at: piece.offset)
            try digest.add(UnsafeRawBufferPointer(memory))
        }
        return try digest.finish()
    }
}

extension DeltaStatement {
    /// Whether its numbers can be worked with.
    fileprivate var isSane: Bool {
        let sizes = 1...Geometry.maximumSize
        return sizes.contains(base.size) && sizes.contains(result.size)
            && (512...WindowStream.length).contains(unit) && unit.nonzeroBitCount == 1
            && (8...32).contains(proof) && records >= 0 && data >= 0 && zeros >= 0
            && (tail != nil || result.size >= base.size)
    }
}

/// The metadata at the start of a stream.
private struct DeltaHead {
    var size: Int?
    var fromSnapshot: String?
    /// Where the first record of data starts.
    var end: Int

    init(_ bytes: any DeltaBytes, _ name: String) throws(IOError) {
        let cursor = ByteCursor(bytes, name: name, from: 0, to: bytes.count)
        guard cursor.rest > RbdDiff.header.count else { throw Self.foreign(name) }
        let start = try cursor.take(RbdDiff.header.count)
        if start == RbdDiff.headerOfVersion2 {
            throw .refusal(
                .wrongKind, name, "it is an rbd diff of version 2",
                advice: "Export it in version 1, as rbd export-diff does.")
        }
        guard start == RbdDiff.header else { throw Self.foreign(name) }
        while true {
            end = cursor.position
            guard let tag = RbdDiff.Tag(rawValue: try cursor.take(1)[0]) else {
                throw .damagedDelta(name, "it has an unknown record at \(end)")
            }
            switch tag {
            case .size:
                let size = try cursor.takeNumber()
                guard self.size == nil, (1...Geometry.maximumSize).contains(size) else {
                    throw .damagedDelta(name, "the size that it states makes no sense")
                }
                self.size = size
            case .fromSnapshot, .toSnapshot:
                let length = try cursor.takeWord()
                guard length <= RbdDiff.longestName else {
                    throw .damagedDelta(name, "the name of a snapshot is too long")
                }
                let text = String(decoding: try cursor.take(length), as: UTF8.self)
                if tag == .fromSnapshot { fromSnapshot = text }
            case .data, .zeros, .end: return
            }
        }
    }

    private static func foreign(_ name: String) -> IOError {
        .refusal(
            .wrongKind, name, "it is no delta: it does not start as an rbd diff does",
            advice: "blkferry diff makes deltas.")
    }
}

/// A record of data.
struct DeltaRecord: Hashable, Sendable {
    var range: ByteRange
    /// Where its bytes are in the delta; `nil` for zeros.
    var place: Int?
}

/// Reads the records of data, and refuses those that make no sense.
final class RecordCursor {
    private let cursor: ByteCursor
    private let name: String
    private let size: Int?
    /// Of the proofs; `nil` if there are none, and the order of records is free.
    private let unit: Int?
    private var last = 0
    private var isAtEnd = false

    init(_ cursor: ByteCursor, name: String, size: Int?, unit: Int?) {
        self.cursor = cursor
        self.name = name
        self.size = size
        self.unit = unit
    }

    /// `nil` behind the end record.
    func next() throws(IOError) -> DeltaRecord? {
        guard !isAtEnd else { return nil }
        let position = cursor.position
        guard let tag = RbdDiff.Tag(rawValue: try cursor.take(1)[0]) else {
            throw .damagedDelta(name, "it has an unknown record at \(position)")
        }
        switch tag {
        case .end:
            guard cursor.rest == 0 else {
                throw .damagedDelta(name, "it goes on behind its end at \(cursor.position)")
            }
            isAtEnd = true
            return nil
        case .data, .zeros:
            let (offset, length) = (try cursor.takeNumber(), try cursor.takeNumber())
            try check(offset, length, at: position)
            let range = ByteRange(offset: offset, length: length)
            last = range.end
            guard tag == .data else { return DeltaRecord(range: range, place: nil) }
            let place = cursor.position
            try cursor.skip(length)
            return DeltaRecord(range: range, place: place)
        case .size, .fromSnapshot, .toSnapshot:
            throw .damagedDelta(name, "its record at \(position) comes too late")
        }
    }

    private func check(_ offset: Int, _ length: Int, at position: Int) throws(IOError) {
        let limit = size ?? Geometry.maximumSize
        guard offset <= limit, length <= limit - offset else {
            throw .damagedDelta(name, "its record at \(position) is behind the end of the result")
        }
        guard let unit else { return }
        let isWhole =
            offset.isMultiple(of: unit)
            && (length.isMultiple(of: unit) || offset + length == limit)
        guard offset >= last, length > 0, isWhole else {
            throw .damagedDelta(name, "its record at \(position) is out of order")
        }
    }
}
